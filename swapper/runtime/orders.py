"""What running workers are told over their own HTTP: how many threads to use, to sleep, to wake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import structlog

from swapper.core import events as ev
from swapper.runtime.crew import Crew
from swapper.runtime.worker_client import Reply, memory_of, reason_of, say, status_of

log = structlog.get_logger("swapper.dispatcher")


class Orders:
    """Owner of the orders under way. Each is carried out beside everything else, and its outcome told."""

    def __init__(self, crew: Crew, tell: Callable[[ev.Event], None]) -> None:
        self._crew = crew
        self._tell = tell
        self._under_way: set[asyncio.Task[None]] = set()

    def set_threads(self, order: ev.SetThreads) -> None:
        """A worker that does not take them goes on as it was."""
        self._in_background(self._set_threads(order.worker_id, order.threads))

    def sleep(self, order: ev.SleepWorker) -> None:
        """Answered by `WorkerSlept` or `SleepFailed`."""
        self._in_background(self._sleep(order.worker_id, order.timeout_s))

    def wake(self, order: ev.WakeWorker) -> None:
        """Answered by `WorkerWoke` or `SleepFailed`."""
        self._in_background(self._wake(order.worker_id, order.timeout_s))

    async def _set_threads(self, worker_id: ev.WorkerId, threads: int) -> None:
        if (running := self._crew.running.get(worker_id)) is None:
            return  # it has just died
        body = {"threads": threads}
        status = await status_of(running.handle.endpoint, "POST", "/threads", body)
        if status != 200 and not running.exited.is_set():
            log.warning("a worker did not take its threads", worker=worker_id, status=status)

    async def _sleep(self, worker_id: ev.WorkerId, timeout_s: float) -> None:
        if (running := self._crew.running.get(worker_id)) is None:
            return
        reply = await say(running.handle.endpoint, "POST", "/sleep", within_s=timeout_s)
        if reply.status == 200:
            self._tell(ev.WorkerSlept(worker_id, running.handle.our_names(memory_of(reply))))
        else:
            self._tell_failed(worker_id, "sleep", reply)
        self._crew.say_changed()

    async def _wake(self, worker_id: ev.WorkerId, timeout_s: float) -> None:
        if (running := self._crew.running.get(worker_id)) is None:
            return
        reply = await say(running.handle.endpoint, "POST", "/wake", within_s=timeout_s)
        if reply.status == 200:
            self._tell(ev.WorkerWoke(worker_id, running.handle.our_names(memory_of(reply))))
        else:
            self._tell_failed(worker_id, "wake", reply)
        self._crew.say_changed()

    def _tell_failed(self, worker_id: ev.WorkerId, what: str, reply: Reply) -> None:
        status = f"it answered {reply.status}" if reply.status else "it did not answer"
        self._tell(ev.SleepFailed(worker_id, f"told to {what}: {reason_of(reply) or status}"))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)  # a task that nobody holds may be collected
        task.add_done_callback(self._under_way.discard)
