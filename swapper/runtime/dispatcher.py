"""The only holder of a Scheduler: feeds it events, carries out its commands, arms one timer.

Everything runs on the event loop's thread and every event is handled to its end before the next one,
so the program needs no lock. Whoever wants a worker takes a `lease`; whatever way the lease ends, it
is given back in one place.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Protocol

import structlog

from swapper.core import events as ev
from swapper.core.registry import Registry
from swapper.core.scheduler import Scheduler
from swapper.core.worker import SERVING_STATES, WorkerState
from swapper.errors import Unavailable
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.history import Decision
from swapper.runtime.lease import Lease, Running, Ticket
from swapper.runtime.log_ring import LogRing
from swapper.runtime.placement import LaunchSpec, Placement, WorkerFacts
from swapper.runtime.preflight import Preflight
from swapper.runtime.views import Snapshot, snapshot
from swapper.runtime.worker_client import memory_of, say, status_of

log = structlog.get_logger("swapper.dispatcher")

LOOK_EVERY_S = 0.1  # at whether lent memory is free: devices tell by their readings
LAST_LINES = 20  # of a failed worker's output, for the terminal


class Memory(Protocol):
    """Where measurements and decisions are kept over restarts."""

    def remember(self, launch: LaunchSpec, measured: ev.Measured) -> None:
        """Keep what was measured of a model under its settings."""
        ...

    def log_decision(self, model: str, action: str, reason: str) -> None:
        """Keep one line of the decision log."""
        ...

    def decisions(self, model: str | None = None, limit: int = 100) -> list[Decision]:
        """The last lines of the decision log, newest first."""
        ...


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
        self.tickets: dict[ev.RequestId, Ticket] = {}
        self.glance: Callable[[], Awaitable[None]] | None = None  # at the GPUs, after a rest
        self._scheduler = scheduler
        self._placement = placement
        self._launches = launches
        self._memory = memory
        self._preflight = Preflight()
        self._running: dict[ev.WorkerId, Running] = {}
        self._facts: dict[str, WorkerFacts] = {}
        self._events: deque[ev.Event] = deque()
        self._is_handling = False
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # uvloop's handle of a timer that is due at once does not know
        self._changed = asyncio.Event()  # set, and replaced, whenever a worker came or went
        self._is_busy = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ for the front

    @property
    def registry(self) -> Registry:
        """The models that are configured now."""
        return self._scheduler.books.registry

    def lease(
        self, model: str, *, arrived_at: float | None = None, priority: int = 0, key: str = ""
    ) -> Ticket:
        """An async context manager that waits for a worker of `model` (a configured name).

        Entering raises Unavailable when the request is refused. Cancelling it while it waits, or
        leaving it, gives the place back. `arrived_at` keeps the place of a request tried again;
        `key` names the API key's holder, and `priority` is the key's.
        """
        return Ticket(self, model, arrived_at, priority, key)

    def launch(self, model: str) -> LaunchSpec:
        """How a configured model's worker is brought up."""
        return self._launches[model]

    def is_loaded(self, model: str) -> bool:
        """Whether the model has a worker, whatever its state."""
        return model in self._scheduler.books.workers

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
        """Unload the model once its answers in flight are done; False if that took longer.

        Whoever asks for it meanwhile has it loaded anew, which is waited for no longer.
        """
        going = [running for running in self._running.values() if running.model == model]
        self.post(ev.UnloadRequested(model))
        return await self._gone(lambda r: any(r is one for one in going), timeout_s)

    async def sleep(self, model: str, timeout_s: float) -> WorkerState | None:
        """Put the model's worker to sleep once its answers in flight are done; returns its state as soon as
        it sleeps, or does not go to, or that took longer; None: it has no worker."""
        self.post(ev.SleepRequested(model))
        deadline, workers = self.clock() + timeout_s, self._scheduler.books.workers
        while (worker := workers.get(model)) is not None and worker.is_to_sleep:
            left = deadline - self.clock()
            if not worker.is_leaving or left <= 0 or not await self.changed(left):
                break
        return None if worker is None else worker.state

    def pin(self, model: str, is_pinned: bool) -> None:
        """Have the model moved out for no other, or again as any."""
        self.post(ev.PinChosen(model, is_pinned))

    def keep(self, model: str, stays_s: float) -> None:
        """Have the model's worker, if it has one, stay idle so long and no longer until it goes."""
        self.post(ev.StayChosen(model, stays_s))

    async def lend(self, memory: Mapping[str, int], for_s: float, within_s: float) -> str | None:
        """Give up so many bytes by device for a while; returns the loan's id as soon as they are free,
        and None, with nothing lent, if that takes longer. Raises ValueError on an unknown device."""
        if unknown := memory.keys() - self.registry.budgets.keys():
            raise ValueError(f"there is no device {', '.join(sorted(unknown))}")
        loan, deadline = secrets.token_hex(8), self.clock() + within_s
        self.post(ev.MemoryLent(loan, memory, self.clock() + for_s))
        try:
            ledger = self._scheduler.books.ledger
            while any(ledger.room(name) < 0 for name in memory):
                left = deadline - self.clock()
                if left <= 0:
                    self.take_back(loan)
                    return None
                await self.changed(min(left, LOOK_EVERY_S))
        except asyncio.CancelledError:  # whoever asked has gone, and knows no id to give it back by
            self.take_back(loan)
            raise
        return loan

    def take_back(self, loan: str) -> bool:
        """The loan is over; False if there is none of that id."""
        is_known = loan in self._scheduler.books.loans
        self.post(ev.MemoryTakenBack(loan))
        return is_known

    def facts(self, model: str) -> WorkerFacts | None:
        """What the model's last ready worker said of itself; None if there was none."""
        return self._facts.get(model)

    def decisions(self, model: str | None, limit: int) -> list[Decision]:
        """What was decided about a model, or about all, and on what figures; newest first."""
        return self._memory.decisions(model, limit)

    def snapshot(self) -> Snapshot:
        """The state as an operator sees it."""
        return snapshot(self._scheduler.books, self._running, self.clock())

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
        while not self._running and not self._scheduler.books.waiting and not self.memory_returns:
            self._is_busy.clear()
            await self._is_busy.wait()

    @property
    def memory_returns(self) -> bool:
        """Whether a GPU is to give memory back of workers that are gone."""
        return self._scheduler.books.ledger.returns_until < float("inf")

    async def changed(self, timeout_s: float) -> bool:
        """Wait until a worker comes up or goes; False if that takes longer."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _gone(self, concerns: Callable[[Running], bool], timeout_s: float) -> bool:
        deadline = self.clock() + timeout_s
        while any(concerns(running) for running in self._running.values()):
            left = deadline - self.clock()
            if left <= 0 or not await self.changed(left):
                return False
        return True

    def own_endpoints(self) -> dict[str, Endpoint]:
        """Where the ready workers answer that swapper has started, by model."""
        workers = self._scheduler.books.workers
        return {
            running.model: running.handle.endpoint
            for running in self._running.values()
            if running.handle.pid is not None
            and (worker := workers.get(running.model)) is not None
            and worker.state in SERVING_STATES
        }

    def pids(self) -> dict[ev.WorkerId, int]:
        """The first process of each worker that has one."""
        return {i: r.handle.pid for i, r in self._running.items() if r.handle.pid is not None}

    def has_served(self, worker_id: ev.WorkerId) -> bool:
        """Whether the worker has answered something, so that its memory has been touched."""
        workers = self._scheduler.books.workers.values()
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
        if not self._is_busy.is_set() and (self._scheduler.books.waiting or self.memory_returns):
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
                case ev.SleepWorker(worker_id, timeout_s):
                    self._in_background(self._sleep(worker_id, timeout_s))
                case ev.WakeWorker(worker_id, timeout_s):
                    self._in_background(self._wake(worker_id, timeout_s))
                case ev.Measured():
                    if (launch := self._launches.get(command.model)) is not None:
                        self._memory.remember(launch, command)
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
            can_sleep = "sleep" in facts.capabilities
            self.post(ev.WorkerReady(worker_id, facts.memory, can_sleep))
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
        self._running[worker_id] = Running(model, launch, handle)

    async def _set_threads(self, worker_id: str, threads: int) -> None:
        running = self._running.get(worker_id)
        if running is not None:
            body = {"threads": threads}
            status = await status_of(running.handle.endpoint, "POST", "/threads", body)
            if status != 200 and not running.exited.is_set():
                log.warning("a worker did not take its threads", worker=worker_id, status=status)

    async def _sleep(self, worker_id: str, timeout_s: float) -> None:
        if (running := self._running.get(worker_id)) is None:
            return  # it has just died
        reply = await say(running.handle.endpoint, "POST", "/sleep", within_s=timeout_s)
        if reply.status == 200:
            self.post(ev.WorkerSlept(worker_id, running.handle.our_names(memory_of(reply))))
        else:
            self._say_sleep_failed(worker_id, "sleep", reply.status)
        self._tell_changed()

    async def _wake(self, worker_id: str, timeout_s: float) -> None:
        if (running := self._running.get(worker_id)) is None:
            return
        reply = await say(running.handle.endpoint, "POST", "/wake", within_s=timeout_s)
        if reply.status == 200:
            self.post(ev.WorkerWoke(worker_id, running.handle.our_names(memory_of(reply))))
        else:
            self._say_sleep_failed(worker_id, "wake", reply.status)
        self._tell_changed()

    def _say_sleep_failed(self, worker_id: str, what: str, status: int) -> None:
        answer = f"it answered {status}" if status else "it did not answer"
        self.post(ev.SleepFailed(worker_id, f"told to {what}, {answer}"))

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
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline != float("inf"):
            self._timer = asyncio.get_running_loop().call_at(deadline, self._on_timer)
            self._timer_at = deadline

    def _on_timer(self) -> None:
        self._timer = None
        self.post(ev.TimePassed())
