"""The composition root: the only place that knows all the parts.

Read `Swapper` for what a swapper is made of and for its life. What outlives it, and is ended after it, is
opened around it in `_run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from swapper import __version__
from swapper.config import Config, Listen, plan_registry
from swapper.core.events import DevicesRead
from swapper.core.scheduler import Scheduler
from swapper.front.origins import Origins
from swapper.front.server import Front
from swapper.greeting import greet
from swapper.listening import EXIT_CANNOT_LISTEN, say_cannot_listen
from swapper.logs import set_up_logs
from swapper.places import runtime_dir, state_dir
from swapper.reload import Reloader
from swapper.runtime.counter import TokenCounter
from swapper.runtime.devices import Devices, Survey, cpu_count, survey
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.history import History
from swapper.runtime.log_ring import LogRing
from swapper.runtime.monitor import Monitor
from swapper.runtime.notify import ServiceManager
from swapper.runtime.placement.local import LocalPlacement
from swapper.runtime.status import status_line
from swapper.watching import WatchedFile

if TYPE_CHECKING:
    from swapper.front.tracing import Tracing

log = structlog.get_logger("swapper")

SHUTDOWN_GRACE_S = 30.0  # for answers in flight, after TERM
STOP_MARGIN_S = 15.0  # for workers to end after that
LINGER_S = 5.0  # for those that wait already, when the next swapper takes the connections over


@dataclass(frozen=True, slots=True)
class Start:
    """What a swapper is started with.

    `read` gives the configuration anew when a reload is asked for, by HUP, over HTTP, or because the
    file `watched` has changed. `listeners` are the service manager's sockets, or as configured.
    """

    config: Config
    read: Callable[[], Config]
    watched: WatchedFile | None
    service: ServiceManager
    listeners: Sequence[Listen | socket.socket]


def serve(start: Start) -> int:
    """Serve until TERM or INT; returns the exit status. Blocks."""
    set_up_logs()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(start))


async def _run(start: Start) -> int:
    seen = await asyncio.to_thread(survey, {})
    gpus = {gpu.name: gpu.uuid for gpu in seen.gpus}
    async with _history() as history, _placement(gpus) as placement:
        swapper = Swapper(start, seen, history, placement)
        try:
            return await swapper.serve()
        finally:
            await swapper.close()


class Swapper:
    """A running swapper: its parts, joined. `serve` once, then `close`. Make it on the event loop."""

    def __init__(
        self, start: Start, seen: Survey, history: History, placement: LocalPlacement
    ) -> None:
        loop, config = asyncio.get_running_loop(), start.config
        planned = plan_registry(config, seen.readings, cpu_count())
        scheduler = Scheduler(planned.registry, history.recall(config.launches))
        dispatcher = Dispatcher(
            scheduler, placement, config.launches, history, LogRing(), loop.time
        )
        self._start = start
        self._notes = (*config.problems, *config.warnings, *planned.notes)
        self._placement = placement
        self._dispatcher = dispatcher
        self._counter = TokenCounter()
        self._tracing = _tracing(dispatcher)
        self._front = _front(config, dispatcher)
        self._front.set_counter(self._counter)
        if self._tracing is not None:
            self._front.set_tracing(self._tracing)
        self._reloader = Reloader(config, start.read, dispatcher, self._front, start.service)
        self._front.set_reload(self._reloader.reload)
        self._monitor = Monitor(dispatcher, Devices(dispatcher.pids))
        dispatcher.post(DevicesRead(seen.readings))
        dispatcher.glance = self._monitor.glance if seen.gpus else None
        self._told_to_end = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> int:
        """Until told to end; returns the exit status."""
        self._look_after_itself()
        for note in self._notes:
            log.warning(str(note))
        config, service = self._start.config, self._start.service
        try:
            addresses = await self._front.start(self._start.listeners)
        except OSError as error:
            say_cannot_listen(config.listen, error)
            return EXIT_CANNOT_LISTEN
        gc.freeze()
        gc.enable()
        log.info("listening", addresses=addresses, models=list(config.models), version=__version__)
        greet(config.models, addresses)
        self._dispatcher.preload(self._dispatcher.registry.models)
        where = ", ".join(addresses)
        service.tell("READY=1", f"STATUS=serving {len(config.models)} models on {where}")
        self._tasks.append(asyncio.create_task(service.keep_told(self._status)))
        await self._told_to_end.wait()
        service.tell("STOPPING=1", "STATUS=finishing answers")
        await self._end()
        return 0

    async def close(self) -> None:
        """End what no worker and no request depends on."""
        for task in self._tasks:
            task.cancel()
        await self._counter.close()
        if self._tracing is not None:
            await self._tracing.close()

    def _look_after_itself(self) -> None:
        loop, watched = asyncio.get_running_loop(), self._start.watched
        _on_first_signal(self._told_to_end.set)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.on_signal)
        self._tasks.append(asyncio.create_task(self._monitor.run()))
        if watched is not None:
            self._tasks.append(asyncio.create_task(self._reloader.watch(watched)))
        loop.call_soon(self._placement.foresee, self._start.config.launches.values())

    def _status(self) -> str:
        line = status_line(self._dispatcher.snapshot(), len(self._dispatcher.registry.models))
        return f"finishing answers: {line}" if self._told_to_end.is_set() else line

    async def _end(self) -> None:
        """Take nothing new, let answers finish for a while, stop the workers.

        Where the service manager keeps the listening sockets, whoever comes waits for the next swapper.
        So nobody is refused who waits already, if it can be helped.
        """
        log.info("stopping", grace_s=SHUTDOWN_GRACE_S)
        if self._start.service.sockets:
            await self._front.serve_out(LINGER_S)
        self._front.begin_shutdown()
        self._dispatcher.begin_shutdown()
        if not await self._front.close(SHUTDOWN_GRACE_S):
            grace_s = SHUTDOWN_GRACE_S
            log.warning("answers were cut: they took longer than the grace", grace_s=grace_s)
        if not await self._dispatcher.ended(STOP_MARGIN_S):
            log.warning("workers are ended by force: they did not stop by themselves")


# ---------------------------------------------------------------- parts


def _front(config: Config, dispatcher: Dispatcher) -> Front:
    is_open = not config.api_keys and not config.insecure
    return Front(
        dispatcher,
        key_in_path=config.key_in_path,
        origins=Origins(config.allowed_origins, config.allowed_hosts, checks_hosts=is_open),
        keepalive_after_s=config.keepalive_after_s,
        loading_text=config.loading_text,
    )


@contextlib.asynccontextmanager
async def _history() -> AsyncIterator[History]:
    history = History(state_dir())
    try:
        yield history
    finally:
        await asyncio.to_thread(history.close)


@contextlib.asynccontextmanager
async def _placement(gpus: Mapping[str, str]) -> AsyncIterator[LocalPlacement]:
    placement = LocalPlacement(runtime_dir(), gpus=gpus)
    try:
        yield placement
    finally:
        await placement.close()


def _tracing(dispatcher: Dispatcher) -> Tracing | None:
    """Where the environment names a receiver of spans, as OpenTelemetry specifies it."""
    if not wants_spans(os.environ):
        return None
    try:
        from swapper.front.tracing import Tracing  # needs the extra `otel`
    except ImportError as error:
        hint = "pip install 'llm-swapper[otel]', or set OTEL_SDK_DISABLED=true"
        log.warning("no traces, though OTEL_* asks for them", error=str(error), hint=hint)
        return None
    return Tracing(dispatcher.clock)


def wants_spans(environ: Mapping[str, str]) -> bool:
    """Whether a receiver is named, and nothing switched off."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if exporter := environ.get("OTEL_TRACES_EXPORTER"):
        return exporter == "otlp"
    return bool(
        environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    )


def _on_first_signal(told: Callable[[], None]) -> None:
    """Call `told` at the first TERM or INT; the second one ends the process as if nobody listened."""
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        told()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed: a third less CPU for each streamed event."""
    try:
        import uvloop  # optional
    except ImportError:
        return None
    return uvloop.Loop  # type: ignore[no-any-return]
