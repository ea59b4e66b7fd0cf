"""The only holder of a Scheduler: feeds it events, carries out its commands, arms one timer.

Everything runs on the event loop's thread and every event is handled to its end before the next one,
so the program needs no lock. Whoever wants a worker takes a `lease`; whatever way the lease ends, it
is given back in one place.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from swapper.core import events as ev
from swapper.core.registry import GROUP, Bytes, Registry, Settings
from swapper.core.scheduler import Scheduler
from swapper.errors import Unavailable
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.history import Decision
from swapper.runtime.log_ring import LogRing
from swapper.runtime.placement import LaunchSpec, Placement, WorkerFacts, WorkerHandle
from swapper.runtime.preflight import Preflight
from swapper.runtime.worker_client import status_of

log = structlog.get_logger("swapper.dispatcher")

LAST_LINES = 20  # of a failed worker's output, for the terminal


class Memory(Protocol):
    """Where measurements and decisions are kept over restarts."""

    def remember(
        self, launch: LaunchSpec, settings: Settings, load_s: float, memory: Bytes
    ) -> None:
        """Keep what was measured of a model under these settings."""
        ...

    def log_decision(self, model: str, action: str, reason: str) -> None:
        """Keep one line of the decision log."""
        ...

    def decisions(self, model: str | None = None, limit: int = 100) -> list[Decision]:
        """The last lines of the decision log, newest first."""
        ...


@dataclass(slots=True)
class _Running:
    """A worker's handle and what became known of it."""

    model: str
    launch: LaunchSpec
    handle: WorkerHandle
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    progress: float = 0.0


@dataclass(slots=True)
class Lease:
    """The right to send one request to one worker. Valid inside its `async with`."""

    worker_id: str
    model: str
    engine: str
    endpoint: Endpoint
    arrived_at: float  # on the dispatcher's clock
    queue_s: float  # time waited in all; of it
    swap_s: float  # others moved out
    load_s: float  # and the worker loaded
    _exited: asyncio.Event

    async def lost(self, timeout_s: float = 1.0) -> bool:
        """Whether the worker is gone; waits a moment for the news of it, for a connection may break
        just before its process is seen to end."""
        try:
            await asyncio.wait_for(self._exited.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker as an operator sees it. Times in seconds, memory in bytes by device: what was set
    aside for it at its start, and what it was measured to take."""

    model: str
    engine: str
    worker_id: str
    state: str
    pid: int | None
    in_flight: int
    progress: float
    reserved: Bytes
    measured: Bytes
    idle_s: float | None
    expires_in_s: float | None
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All workers, and how many requests wait for each model that somebody waits for."""

    workers: tuple[WorkerView, ...]
    waiting: Mapping[str, int]


class _LeaseContext:
    """One request's stay: arrives on entry, ends on exit, whoever leaves first."""

    __slots__ = (
        "_arrived",
        "_dispatcher",
        "_future",
        "_outcome",
        "_request_id",
        "arrived_at",
        "model",
    )

    def __init__(
        self, dispatcher: Dispatcher, model: str, arrived_at: float | None, priority: int, key: str
    ) -> None:
        self._dispatcher = dispatcher
        self._request_id = next(dispatcher.request_ids)
        self._outcome: Lease | Unavailable | None = None
        self._future: asyncio.Future[None] | None = None
        self.model = model
        self.arrived_at = dispatcher.clock() if arrived_at is None else arrived_at
        self._arrived = ev.RequestArrived(
            self._request_id, model, self.arrived_at, priority=priority, key=key
        )

    async def __aenter__(self) -> Lease:
        if not self._dispatcher.is_loaded(self.model):
            await self._dispatcher.check(self.model)
        self._dispatcher.tickets[self._request_id] = self
        self._dispatcher.post(self._arrived)
        try:
            if self._outcome is None:
                self._future = asyncio.get_running_loop().create_future()
                await self._future
            if isinstance(self._outcome, Lease):
                return self._outcome
            assert self._outcome is not None, "a ticket was resolved without an outcome"
            raise self._outcome
        except BaseException:
            self._end()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        del self._dispatcher.tickets[self._request_id]
        self._dispatcher.post(ev.RequestEnded(self._request_id))

    def resolve(self, outcome: Lease | Unavailable) -> None:
        """The scheduler has decided. A client who has left meanwhile is no error."""
        self._outcome = outcome
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Dispatcher:
    """Owner of the scheduler and of all running workers."""

    def __init__(
        self,
        scheduler: Scheduler,
        placement: Placement,
        launches: Mapping[str, LaunchSpec],
        memory: Memory,
        logs: LogRing,
        clock: Callable[[], float],
    ) -> None:
        self.clock = clock
        self.logs = logs
        self.request_ids = itertools.count(1)
        self.tickets: dict[ev.RequestId, _LeaseContext] = {}
        self.glance: Callable[[], Awaitable[None]] | None = None  # at the GPUs, after a rest
        self._scheduler = scheduler
        self._placement = placement
        self._launches = launches
        self._memory = memory
        self._preflight = Preflight()
        self._running: dict[ev.WorkerId, _Running] = {}
        self._facts: dict[str, WorkerFacts] = {}
        self._events: deque[ev.Event] = deque()
        self._is_handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()  # set, and replaced, whenever a worker came or went
        self._is_busy = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ for the front

    @property
    def registry(self) -> Registry:
        """The models that are configured now."""
        return self._scheduler.registry

    def lease(
        self, model: str, *, arrived_at: float | None = None, priority: int = 0, key: str = ""
    ) -> _LeaseContext:
        """An async context manager that waits for a worker of `model` (a configured name).

        Entering raises Unavailable when the request is refused. Cancelling it while it waits, or
        leaving it, gives the place back. `arrived_at` keeps the place of a request tried again;
        `key` names the API key's holder, and `priority` is the key's.
        """
        return _LeaseContext(self, model, arrived_at, priority, key)

    def is_loaded(self, model: str) -> bool:
        """Whether the model has a worker, whatever its state."""
        return model in self._scheduler.workers

    async def check(self, model: str) -> None:
        """Refuse what is seen at a glance not to load, before anybody is moved out for it.

        Raises Unavailable.
        """
        failure = await self._preflight.check(self._launches[model])
        if failure is not None:
            reason = f"{model} could not be loaded: {failure.reason}"
            raise Unavailable("load_failed", reason, retry_after_s=5.0, cause=failure.kind)
        if self.glance is not None and not self._running:
            await self.glance()

    def load(self, model: str) -> None:
        """Make the model resident without a request, as soon as there is room."""
        self.post(ev.LoadRequested(model))

    async def unload(self, model: str, timeout_s: float) -> bool:
        """Unload the model once its answers in flight are done; False if that took longer."""
        self.post(ev.UnloadRequested(model))
        return await self._gone(lambda r: r.model == model, timeout_s)

    def facts(self, model: str) -> WorkerFacts | None:
        """What the model's last ready worker said of itself; None if there was none."""
        return self._facts.get(model)

    def decisions(self, model: str | None, limit: int) -> list[Decision]:
        """What was decided about a model, or about all, and on what figures; newest first."""
        return self._memory.decisions(model, limit)

    def snapshot(self) -> Snapshot:
        """The state as an operator sees it."""
        now = self.clock()
        waiting = {m: len(d.queue) for m, d in self._scheduler.demand.items() if d.queue}
        return Snapshot(tuple(self._view(model, now) for model in self._scheduler.workers), waiting)

    def _view(self, model: str, now: float) -> WorkerView:
        scheduler = self._scheduler
        worker, spec = scheduler.workers[model], scheduler.demand[model].spec
        running = self._running.get(worker.id)
        expires_at = scheduler.expires_at(worker)
        return WorkerView(
            model=model,
            engine=spec.engine,
            worker_id=worker.id,
            state=worker.state.value,
            pid=running.handle.pid if running else None,
            in_flight=worker.num_in_flight,
            progress=running.progress if running else 0.0,
            reserved={n: b for n, b in worker.reserved.items() if not n.startswith(GROUP)},
            measured=worker.measured,
            idle_s=None if worker.idle_since is None else now - worker.idle_since,
            expires_in_s=None if expires_at == float("inf") else expires_at - now,
            ttl_s=spec.ttl_s,
        )

    # ------------------------------------------------------------ for the app

    def replace(
        self, registry: Registry, launches: Mapping[str, LaunchSpec], changed: frozenset[str]
    ) -> None:
        """Take a new configuration over. Workers of `changed` and of removed models drain and go,
        all others do not notice."""
        self._launches = launches
        self.post(ev.RegistryReplaced(registry, changed))

    def preload(self, models: Iterable[str]) -> None:
        """Load those of the models that the configuration wants loaded from the start."""
        for model in models:
            if self.registry.models[model].preload:
                self.load(model)

    def begin_shutdown(self) -> None:
        """Refuse whoever waits and whoever comes, stop idle workers, let busy ones finish."""
        self.post(ev.ShutdownRequested())

    async def ended(self, timeout_s: float) -> bool:
        """Wait until no worker is left; False if that took longer."""
        return await self._gone(lambda _: True, timeout_s)

    async def busy(self) -> None:
        """Wait until there is a worker, or somebody waits for one, or a GPU is to be looked at."""
        while not self._running and not self._scheduler.waiting and not self.memory_returns:
            self._is_busy.clear()
            await self._is_busy.wait()

    @property
    def memory_returns(self) -> bool:
        """Whether a GPU is to give memory back of workers that are gone."""
        return self._scheduler.ledger.returns_until < float("inf")

    async def changed(self, timeout_s: float) -> bool:
        """Wait until a worker comes up or goes; False if that takes longer."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _gone(self, concerns: Callable[[_Running], bool], timeout_s: float) -> bool:
        deadline = self.clock() + timeout_s
        while any(concerns(running) for running in self._running.values()):
            left = deadline - self.clock()
            if left <= 0 or not await self.changed(left):
                return False
        return True

    def pids(self) -> dict[ev.WorkerId, int]:
        """The first process of each worker that has one."""
        return {i: r.handle.pid for i, r in self._running.items() if r.handle.pid is not None}

    def has_served(self, worker_id: ev.WorkerId) -> bool:
        """Whether the worker has answered something, so that its memory has been touched."""
        workers = self._scheduler.workers.values()
        return any(worker.id == worker_id and worker.num_served > 0 for worker in workers)

    # ------------------------------------------------------------ events in, commands out

    def post(self, event: ev.Event) -> None:
        """Handle one event now, or, from within a command's effect, right after the current one."""
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._is_handling = False
        if not self._is_busy.is_set() and (self._scheduler.waiting or self.memory_returns):
            self._is_busy.set()
        self._arm_timer()

    def _handle(self, event: ev.Event) -> None:
        for command in self._scheduler.handle(event, self.clock()):
            match command:
                case ev.Grant():
                    self._grant(command)
                case ev.Reject():
                    self._reject(command)
                case ev.StartWorker():
                    self._start(command)
                case ev.StopWorker():
                    self._running[command.worker_id].handle.stop(command.grace_s)
                case ev.SetThreads(worker_id, threads):
                    self._in_background(self._set_threads(worker_id, threads))
                case ev.Measured(model, settings, load_s, memory):
                    if (launch := self._launches.get(model)) is not None:
                        self._memory.remember(launch, settings, load_s, memory)
                case ev.Decided(model, action, reason):
                    log.info(action, model=model, reason=reason)
                    self._memory.log_decision(model, action, reason)

    def _grant(self, grant: ev.Grant) -> None:
        ticket = self.tickets[grant.request_id]
        running = self._running[grant.worker_id]
        ticket.resolve(
            Lease(
                worker_id=grant.worker_id,
                model=running.model,
                engine=running.launch.engine,
                endpoint=running.handle.endpoint,
                arrived_at=ticket.arrived_at,
                queue_s=self.clock() - ticket.arrived_at,
                swap_s=grant.swap_s,
                load_s=grant.load_s,
                _exited=running.exited,
            )
        )

    def _reject(self, refusal: ev.Reject) -> None:
        ticket = self.tickets[refusal.request_id]
        ticket.resolve(
            Unavailable(
                refusal.kind,
                refusal.reason,
                retry_after_s=refusal.retry_after_s,
                cause=refusal.cause,
            )
        )

    def _start(self, command: ev.StartWorker) -> None:
        worker_id, model, launch = command.worker_id, command.model, self._launches[command.model]
        self._is_busy.set()

        def on_progress(progress: float) -> None:
            self._running[worker_id].progress = progress

        def on_ready(facts: WorkerFacts) -> None:
            self._facts[model] = facts
            self._running[worker_id].progress = 1.0
            self.post(ev.WorkerReady(worker_id, facts.memory))
            self._tell_changed()

        def on_exit(failure: ev.Failure | None) -> None:
            self._running.pop(worker_id).exited.set()
            if failure is not None:
                self._tell_failure(worker_id, model, failure)
            self.post(ev.WorkerExited(worker_id, failure))
            self._tell_changed()

        handle = self._placement.start(
            worker_id,
            launch,
            command.settings,
            command.load_timeout_s,
            on_progress=on_progress,
            on_ready=on_ready,
            on_exit=on_exit,
            on_output=lambda line: self.logs.append(model, line),
        )
        self._running[worker_id] = _Running(model, launch, handle)

    async def _set_threads(self, worker_id: str, threads: int) -> None:
        running = self._running.get(worker_id)
        if running is not None:
            body = {"threads": threads}
            status = await status_of(running.handle.endpoint, "POST", "/threads", body)
            if status != 200 and not running.exited.is_set():
                log.warning("a worker did not take its threads", worker=worker_id, status=status)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # a task that nobody holds may be collected
        task.add_done_callback(self._tasks.discard)

    def _tell_failure(self, worker_id: str, model: str, failure: ev.Failure) -> None:
        lines = [line.text for line in self.logs.last(model, LAST_LINES)]
        log.error(
            "worker failed",
            worker=worker_id,
            kind=failure.kind,
            reason=failure.reason,
            last_lines=lines,
        )

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _arm_timer(self) -> None:
        """One timer for the scheduler's next deadline. One that is set for earlier may stay: it
        finds nothing to do and is armed anew, which is cheaper than moving it at every request."""
        deadline = self._scheduler.next_deadline()
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline != float("inf"):
            self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.post(ev.TimePassed())
