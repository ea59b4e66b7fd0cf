"""One worker's life, from its start to the end of its last process. Does as told, decides nothing.

    check -> spawn -> (progress ...) -> ready -> ... -> exit

`stop` and failures may come at any point; from then on only the exit is still to happen. Whatever
happens, `on_exit` is called exactly once, when no process is left and all output has been read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from swapper.core.events import Failure
from swapper.core.registry import Bytes
from swapper.runtime import cgroup, failures
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.placement import WorkerFacts
from swapper.runtime.process_group import ProcessGroup, Program
from swapper.runtime.report import Progress, parse

LAST_LINES = 100  # kept to tell why it failed
FAREWELL_S = 2.0  # for a worker that has reported its failure to end by itself

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """What a supervisor needs to know of a worker.

    `check` runs first, and may forbid the start. `probe` returns when the worker answers, or says
    why it never will; None: the worker reports by itself. `loaded` is called when it is ready or
    gone, `release` when it is gone. `our_names`: as in `WorkerHandle`.
    """

    model: str
    program: Program
    endpoint: Endpoint
    check: Callable[[], Awaitable[Failure | None]] | None = None
    probe: Callable[[int], Awaitable[Failure | None]] | None = None  # of the first process
    loaded: Callable[[], None] = lambda: None
    release: Callable[[], None] = lambda: None
    our_names: Callable[[Bytes], Bytes] = lambda memory: memory


@dataclass(frozen=True, slots=True)
class Callbacks:
    """As in `Placement.start`."""

    on_progress: Callable[[float], None]
    on_ready: Callable[[WorkerFacts], None]
    on_exit: Callable[[Failure | None], None]
    on_output: Callable[[str], None]


class Supervisor:
    """A `WorkerHandle`. Starts its worker in the next turn of the event loop."""

    def __init__(self, launch: Launch, load_timeout_s: float, callbacks: Callbacks) -> None:
        self._loop = asyncio.get_running_loop()
        self._launch = launch
        self._load_timeout_s = load_timeout_s
        self._callbacks = callbacks
        self._group: ProcessGroup | None = None
        self._failure: Failure | None = None  # the first that is known
        self._is_ready = False
        self._is_stopping = False
        self._progress = -1.0
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._kill_timer: asyncio.Handle | None = None
        self._kill_at = 0.0  # uvloop's handle of a timer that is due at once does not know
        self.gone = self._loop.create_task(self._live())  # done when nothing is left of it

    @property
    def endpoint(self) -> Endpoint:
        """See `WorkerHandle`."""
        return self._launch.endpoint

    @property
    def pid(self) -> int | None:
        """Its first process, from which all others descend; None before it is started."""
        return self._group.pid if self._group else None

    def our_names(self, memory: Bytes) -> Bytes:
        """See `WorkerHandle`."""
        return self._launch.our_names(memory)

    def stop(self, grace_s: float) -> None:
        """See `WorkerHandle`."""
        is_first, self._is_stopping = not self._is_stopping, True
        if self._group is None:
            return  # not spawned yet, and now it will not be
        if is_first and grace_s > 0:
            self._group.terminate()
        self._kill_within(grace_s)

    async def _live(self) -> None:
        failure: Failure | None = None
        try:
            failure = await self._work()
        except OSError as error:
            failure = failures.cannot_start(error)
        except Exception as error:
            log.exception("a worker could not be run", model=self._launch.model)
            failure = Failure("crashed", f"swapper could not run the worker: {error}")
        finally:
            if self._group is not None:
                self._group.kill()  # nothing to do, unless this task was cancelled
            self._launch.loaded()
            self._launch.release()
            self._callbacks.on_exit(None if self._is_stopping else failure)

    async def _work(self) -> Failure | None:
        """Everything between start and end; why it ended."""
        if self._launch.check is not None and (forbidden := await self._launch.check()):
            return forbidden
        if self._is_stopping:
            return None
        kills = cgroup.oom_kills()
        status = await self._run()
        return self._failure or failures.classify(
            status,
            self._last_lines,
            model=self._launch.model,
            was_ready=self._is_ready,
            oom_killed=cgroup.oom_kills() > kills,
        )

    async def _run(self) -> int:
        """Spawn it, and stay with it until it is gone."""
        self._group = await ProcessGroup.start(self._launch.program, self._on_line, self._on_report)
        if self._is_stopping:  # it has nothing to finish yet
            self._group.kill()
        timeout = self._loop.call_later(self._load_timeout_s, self._on_load_timeout)
        probing = self._loop.create_task(self._probe(self._group.pid))
        try:
            return await self._group.wait()
        finally:
            probing.cancel()
            timeout.cancel()
            if self._kill_timer is not None:
                self._kill_timer.cancel()

    async def _probe(self, pid: int) -> None:
        if self._launch.probe is None:
            return
        if failure := await self._launch.probe(pid):
            self._fail(failure)
        else:
            self._become_ready(WorkerFacts())

    def _on_line(self, line: str) -> None:
        self._last_lines.append(line)
        self._callbacks.on_output(line)

    def _on_report(self, line: str) -> None:
        match parse(line):
            case Progress(fraction):
                self._advance(fraction)
            case WorkerFacts() as facts:
                self._become_ready(facts)
            case Failure() as failure:
                self._fail(failure, FAREWELL_S)
            case None:
                log.debug("report not understood", model=self._launch.model, line=line)

    def _advance(self, fraction: float) -> None:
        if self._is_loading and fraction > self._progress:
            self._progress = fraction
            self._callbacks.on_progress(fraction)

    def _become_ready(self, facts: WorkerFacts) -> None:
        if self._is_loading:
            self._is_ready = True
            self._launch.loaded()
            self._callbacks.on_ready(facts)

    def _on_load_timeout(self) -> None:
        if self._is_loading:
            self._fail(failures.load_timeout(self._load_timeout_s, self._launch.model))

    def _fail(self, failure: Failure, grace_s: float = 0.0) -> None:
        self._failure = self._failure or failure
        self._kill_within(grace_s)

    @property
    def _is_loading(self) -> bool:
        return not (self._is_ready or self._is_stopping or self._failure)

    def _kill_within(self, grace_s: float) -> None:
        """Have it killed after `grace_s`, or sooner if that was said before."""
        if self._group is None:
            return
        kill_at = self._loop.time() + max(0.0, grace_s)
        if self._kill_timer is not None:
            if self._kill_at <= kill_at:
                return
            self._kill_timer.cancel()
        self._kill_timer = self._loop.call_at(kill_at, self._group.kill)
        self._kill_at = kill_at
