"""The workers that run: brought up, told to end, and what becomes known of them in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from swapper.core import events as ev
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.lease import Running
from swapper.runtime.log_ring import LogRing
from swapper.runtime.placement import LaunchSpec, Placement, WorkerFacts

log = structlog.get_logger("swapper.dispatcher")

LAST_LINES = 20  # of a failed worker's output, for the terminal


class Crew:
    """Owner of all running workers, and of what the last one of each model said of itself."""

    def __init__(
        self,
        placement: Placement,
        logs: LogRing,
        tell: Callable[[ev.Event], None],
        clock: Callable[[], float],
    ) -> None:
        self.running: dict[ev.WorkerId, Running] = {}  # for others to read
        self.facts: dict[str, WorkerFacts] = {}  # by model
        self._placement = placement
        self._logs = logs
        self._tell = tell
        self._clock = clock
        self._changed = asyncio.Event()  # set, and replaced, whenever a worker came or went

    def start(self, command: ev.StartWorker, launch: LaunchSpec) -> None:
        """Bring a worker up; what becomes of it is told."""
        worker_id, model = command.worker_id, command.model

        def on_progress(progress: float) -> None:
            self.running[worker_id].progress = progress

        def on_ready(facts: WorkerFacts) -> None:
            self.facts[model] = facts
            self.running[worker_id].progress = 1.0
            can_sleep = "sleep" in facts.capabilities
            self._tell(ev.WorkerReady(worker_id, facts.memory, can_sleep))
            self.say_changed()

        def on_exit(failure: ev.Failure | None) -> None:
            self.running.pop(worker_id).exited.set()
            if failure is not None:
                self._log_failure(worker_id, model, failure)
            self._tell(ev.WorkerExited(worker_id, failure))
            self.say_changed()

        handle = self._placement.start(
            worker_id,
            launch,
            command.settings,
            command.load_timeout_s,
            on_progress=on_progress,
            on_ready=on_ready,
            on_exit=on_exit,
            on_output=lambda line: self._logs.append(model, line),
        )
        self.running[worker_id] = Running(model, launch, handle)

    def stop(self, worker_id: ev.WorkerId, grace_s: float) -> None:
        """End a worker: orderly, by force after `grace_s`."""
        self.running[worker_id].handle.stop(grace_s)

    def of(self, model: str) -> list[Running]:
        """The model's workers: one, or that and the next one."""
        return [running for running in self.running.values() if running.model == model]

    def pids(self) -> dict[ev.WorkerId, int]:
        """The first process of each worker that has one."""
        return {i: r.handle.pid for i, r in self.running.items() if r.handle.pid is not None}

    def own_endpoints(self, models: Iterable[str]) -> dict[str, Endpoint]:
        """Where those of the models answer whose worker is a process of ours."""
        wanted = set(models)
        return {
            running.model: running.handle.endpoint
            for running in self.running.values()
            if running.handle.pid is not None and running.model in wanted
        }

    # ------------------------------------------------------------ news

    def say_changed(self) -> None:
        """Whoever waits for news of workers is to look."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, timeout_s: float) -> bool:
        """Wait until a worker comes up, sleeps, wakes or goes; False if that takes longer."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def gone(self, workers: Iterable[Running], timeout_s: float) -> bool:
        """Wait until none of these workers is left; False if that takes longer."""
        deadline, leaving = self._clock() + timeout_s, list(workers)
        while any(not running.exited.is_set() for running in leaving):
            left = deadline - self._clock()
            if left <= 0 or not await self.changed(left):
                return False
        return True

    def _log_failure(self, worker_id: ev.WorkerId, model: str, failure: ev.Failure) -> None:
        lines = [line.text for line in self._logs.last(model, LAST_LINES)]
        log.error(
            "worker failed",
            worker=worker_id,
            kind=failure.kind,
            reason=failure.reason,
            last_lines=lines,
        )
