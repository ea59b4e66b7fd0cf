"""The composition root: the only place that knows all the parts.

It builds each of them once, joins them, and ends them in the opposite order. Read `_run` for what a
swapper is made of, and `_serve_until_told` for its life.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from swapper import __version__
from swapper.config import Config, Listen, cards_of, listen_of, plan_registry
from swapper.core.events import DevicesRead
from swapper.core.scheduler import Scheduler
from swapper.errors import ConfigError
from swapper.front.origins import Origins
from swapper.front.server import Front
from swapper.listening import EXIT_CANNOT_LISTEN, say_cannot_listen
from swapper.logs import set_up_logs
from swapper.reload import Reloader
from swapper.runtime.counter import TokenCounter
from swapper.runtime.devices import Devices, cpu_count, survey
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.history import History
from swapper.runtime.log_ring import LogRing
from swapper.runtime.monitor import Monitor
from swapper.runtime.notify import ServiceManager
from swapper.runtime.placement.local import LocalPlacement
from swapper.runtime.status import status_line

if TYPE_CHECKING:
    from swapper.front.tracing import Tracing

log = structlog.get_logger("swapper")

SHUTDOWN_GRACE_S = 30.0  # for answers in flight, after TERM
STOP_MARGIN_S = 15.0  # for workers to end after that
LINGER_S = 5.0  # for those that wait already, when the next swapper takes the connections over


def serve(
    config: Config,
    read: Callable[[], Config],
    watched: Path | None,
    service: ServiceManager,
    listeners: Sequence[Listen | socket.socket],
) -> int:
    """Serve until TERM or INT; returns the exit status. Blocks.

    `read` gives the configuration anew when a reload is asked for, by HUP, over HTTP, or because the
    file `watched` has changed. `listeners` are the service manager's sockets, or as configured.
    """
    set_up_logs()
    if service.sockets:
        passed = tuple(map(listen_of, service.sockets))
        read_file, read = read, lambda: read_file().listening_on(passed)
        try:
            config = config.listening_on(passed)
        except ConfigError as error:
            print(f"swapper was given sockets by the service manager: {error}", file=sys.stderr)
            return os.EX_CONFIG
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(config, read, watched, service, listeners))


async def _run(
    config: Config,
    read: Callable[[], Config],
    watched: Path | None,
    service: ServiceManager,
    listeners: Sequence[Listen | socket.socket],
) -> int:
    logs = LogRing()
    seen = await asyncio.to_thread(survey, {})
    gpus = {gpu.name: gpu.uuid for gpu in seen.gpus}
    async with _history() as history, _placement(gpus) as placement:
        loop = asyncio.get_running_loop()
        planned = plan_registry(config, seen.readings, cpu_count())
        scheduler = Scheduler(planned.registry, history.recall(config.launches))
        dispatcher = Dispatcher(scheduler, placement, config.launches, history, logs, loop.time)
        front = Front(
            dispatcher,
            api_keys=config.api_keys,
            key_in_path=config.key_in_path,
            origins=_origins(config),
            keepalive_after_s=config.keepalive_after_s,
            loading_text=config.loading_text,
        )
        front.set_adjustments(config.adjustments)
        front.set_cards(cards_of(config))
        front.set_capture(config.capture)
        counter = TokenCounter()
        front.set_counter(counter)
        reloader = Reloader(config, read, dispatcher, front, service)
        front.set_reload(reloader.reload)
        tracing = _tracing(dispatcher)
        if tracing is not None:
            front.set_tracing(tracing)
        monitor = Monitor(dispatcher, Devices(dispatcher.pids))
        dispatcher.post(DevicesRead(seen.readings))
        dispatcher.glance = monitor.glance if gpus else None
        tasks = [asyncio.create_task(monitor.run())]
        if watched is not None:
            tasks.append(asyncio.create_task(reloader.watch(watched)))
        loop.add_signal_handler(signal.SIGHUP, reloader.on_signal)
        try:
            for note in (*config.problems, *config.warnings, *planned.notes):
                log.warning(str(note))
            loop.call_soon(placement.foresee, config.launches.values())
            return await _serve_until_told(config, dispatcher, front, service, listeners)
        finally:
            for task in tasks:
                task.cancel()
            await counter.close()
            if tracing is not None:
                await tracing.close()


async def _serve_until_told(
    config: Config,
    dispatcher: Dispatcher,
    front: Front,
    service: ServiceManager,
    listeners: Sequence[Listen | socket.socket],
) -> int:
    told_to_end = _signals()
    try:
        addresses = await front.start(listeners)
    except OSError as error:
        say_cannot_listen(config.listen, error)
        return EXIT_CANNOT_LISTEN
    gc.freeze()
    gc.enable()
    _greet(config, addresses)
    dispatcher.preload(dispatcher.registry.models)
    service.tell("READY=1", f"STATUS=serving {len(config.models)} models on {', '.join(addresses)}")

    def status() -> str:
        line = status_line(dispatcher.snapshot(), len(dispatcher.registry.models))
        return f"finishing answers: {line}" if told_to_end.is_set() else line

    telling = asyncio.create_task(service.keep_told(status))
    await told_to_end.wait()
    service.tell("STOPPING=1", "STATUS=finishing answers")
    await _end(dispatcher, front, is_followed=bool(service.sockets))
    telling.cancel()
    return 0


async def _end(dispatcher: Dispatcher, front: Front, *, is_followed: bool) -> None:
    """Take nothing new, let answers finish for a while, stop the workers.

    `is_followed`: the listening sockets stay, and whoever comes waits for the next swapper. So nobody
    is refused who waits already, if it can be helped.
    """
    log.info("stopping", grace_s=SHUTDOWN_GRACE_S)
    if is_followed:
        await front.serve_out(LINGER_S)
    front.begin_shutdown()
    dispatcher.begin_shutdown()
    if not await front.close(SHUTDOWN_GRACE_S):
        log.warning("answers were cut: they took longer than the grace", grace_s=SHUTDOWN_GRACE_S)
    if not await dispatcher.ended(STOP_MARGIN_S):
        log.warning("workers are ended by force: they did not stop by themselves")


# ---------------------------------------------------------------- parts


def _origins(config: Config) -> Origins:
    is_open = not config.api_keys and not config.insecure
    return Origins(config.allowed_origins, config.allowed_hosts, checks_hosts=is_open)


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


def state_dir() -> Path:
    """Where measurements are kept: the service manager's choice, or the user's state folder."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "swapper"


def runtime_dir() -> Path:
    """Where workers' sockets live: the service manager's choice, the user's, or the state folder."""
    if given := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0])
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "swapper" if base else state_dir() / "run"


def _signals() -> asyncio.Event:
    """Set by the first TERM or INT; the second one ends the process as if nobody listened."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return told


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed: a third less CPU for each streamed event."""
    try:
        import uvloop  # optional
    except ImportError:
        return None
    return uvloop.Loop  # type: ignore[no-any-return]


# ---------------------------------------------------------------- words for the terminal


def _greet(config: Config, addresses: list[str]) -> None:
    """What to try next, for a person at a terminal."""
    log.info("listening", addresses=addresses, models=list(config.models), version=__version__)
    if not sys.stdout.isatty() and not os.environ.get("SWAPPER_GREET"):
        return
    url = next((a for a in addresses if a.startswith("http")), None)
    model = next(iter(config.models), None)
    if url is None or model is None:
        return
    words = {"url": url.rstrip("/"), "model": model, "command": _own_command()}
    print(GREETING.format(version=__version__, **words), flush=True)


def _own_command() -> str:
    """How this program is called here: it may not be on the PATH."""
    program = Path(sys.argv[0])
    if shutil.which(program.name):
        return program.name
    return os.path.relpath(program) if program.is_file() else "swapper"


GREETING = """
swapper {version} is ready on {url}

Ask a model something, in another terminal:

  curl {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is swapper?"}}]}}'

Or from Python (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="none")
  for event in client.chat.completions.create(
      model="{model}", stream=True, messages=[{{"role": "user", "content": "What is swapper?"}}]
  ):
      print(event.choices[0].delta.content or "", end="", flush=True)

Or stay in the terminal:

  {command} run {model}
  {command} ps        what is loaded
  {command} list      all models

Ctrl-C ends it.
"""
