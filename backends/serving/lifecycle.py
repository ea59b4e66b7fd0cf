"""A worker's life on the event loop: wait for the load, say ready, serve, drain, close."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable

from aiohttp import web

from backends.serving.app import KEEPALIVE_S, Serving
from backends.serving.engine import CanSleep, Engine, EngineError
from backends.serving.report import Report
from backends.serving.worker import FAILED, OK, Loading, leave

BACKLOG = 1024
BROKEN_GRACE_S = 2.0


def serve(listen: str, sock: socket.socket, loading: Loading, report: Report) -> int:
    """Run until told to end; the exit code comes back. Raises EngineError when the load fails."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Life(listen, sock, loading, report).run())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop  # type: ignore[no-any-return]


class _Life:
    def __init__(self, listen: str, sock: socket.socket, loading: Loading, report: Report) -> None:
        self._listen = listen
        self._sock = sock
        self._loading = loading
        self._report = report
        self._stop = asyncio.Event()
        self._broken: EngineError | None = None

    async def run(self) -> int:
        engine = await self._loaded()
        serving = Serving(engine, self._break)
        runner = web.AppRunner(
            serving.application(),
            access_log=None,
            handler_cancellation=True,  # a client that leaves stops its sequences
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=0.0,  # only idle connections are left by then
        )
        await runner.setup()
        try:
            await self._until_told_to_end(serving, runner)
        finally:
            await runner.cleanup()
            await serving.served.close()
            await engine.close()
        return OK if self._broken is None else FAILED

    async def _loaded(self) -> Engine:
        """The engine. TERM is obeyed at once meanwhile: nothing is in flight that could be cut."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leave, self._listen, OK)
        return await loop.run_in_executor(None, self._loading.wait)

    async def _until_told_to_end(self, serving: Serving, runner: web.AppRunner) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        await web.SockSite(runner, self._sock, backlog=BACKLOG).start()
        info = serving.engine.info
        sleep = {"sleep"} if isinstance(serving.engine, CanSleep) else frozenset[str]()
        capabilities = serving.capabilities | sleep
        self._report.ready(serving.engine.memory(), info.context, capabilities)
        gc.freeze()  # what is loaded stays: no collection need look at it again
        gc.enable()
        serving.warm_up()
        preparing = asyncio.create_task(serving.prepare())
        await self._stop.wait()
        preparing.cancel()
        try:
            async with asyncio.timeout(None if self._broken is None else BROKEN_GRACE_S):
                await serving.drained()
        except TimeoutError:
            pass  # a broken engine may have left answers that nothing will ever end

    def _break(self, error: EngineError) -> None:
        """The engine can serve nothing any more: say so, let the answers out, end."""
        if self._broken is None:
            self._broken = error
            self._report.failed(error.kind, error.reason)
            print(error.reason, file=sys.stderr, flush=True)
        self._stop.set()
