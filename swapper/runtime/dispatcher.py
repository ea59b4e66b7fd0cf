"""The only holder of a Scheduler: feeds it events, carries out its commands, arms one timer.

Everything runs on the event loop's thread and every event is handled to its end before the next one,
so the program needs no lock. Whoever wants a worker takes a `lease`; whatever way the lease ends, it
is given back in one place.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

import structlog

from swapper.core import events as ev
from swapper.core.registry import Registry
from swapper.core.scheduler import Scheduler
from swapper.core.worker import SERVING_STATES, WorkerState
from swapper.errors import Unavailable
from swapper.runtime.crew import Crew
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.history import Decision
from swapper.runtime.lease import Lease, Ticket
from swapper.runtime.loans import Loans
from swapper.runtime.log_ring import LogRing
from swapper.runtime.orders import Orders
from swapper.runtime.placement import LaunchSpec, Placement, WorkerFacts
from swapper.runtime.preflight import Preflight
from swapper.runtime.views import Snapshot, snapshot

log = structlog.get_logger("swapper.dispatcher")


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
    """Owner of the scheduler, of who waits for it, and of its timer."""

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
        self.decided: Counter[tuple[str, str, str]] = Counter()  # model, action, cause
        self.glance: Callable[[], Awaitable[None]] | None = None  # at the GPUs, after a rest
        self._scheduler = scheduler
        self._launches = launches
        self._memory = memory
        self._preflight = Preflight()
        self._crew = Crew(placement, logs, self.post, clock)
        self._orders = Orders(self._crew, self.post)
        self.loans = Loans(scheduler.books, self._crew, self.post, clock)
        self._events: deque[ev.Event] = deque()
        self._is_handling = False
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # uvloop's handle of a timer that is due at once does not know
        self._is_busy = asyncio.Event()

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
        if self.glance is not None and not self._crew.running:
            await self.glance()

    def load(self, model: str) -> None:
        """Make the model resident without a request, as soon as there is room."""
        self.post(ev.LoadRequested(model))

    async def unload(self, model: str, timeout_s: float) -> bool:
        """Unload the model once its answers in flight are done; False if that took longer.

        Whoever asks for it meanwhile has it loaded anew, which is waited for no longer.
        """
        going = self._crew.of(model)
        self.post(ev.UnloadRequested(model))
        return await self._crew.gone(going, timeout_s)

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

    def facts(self, model: str) -> WorkerFacts | None:
        """What the model's last ready worker said of itself; None if there was none."""
        return self._crew.facts.get(model)

    def decisions(self, model: str | None, limit: int) -> list[Decision]:
        """What was decided about a model, or about all, and on what figures; newest first."""
        return self._memory.decisions(model, limit)

    def snapshot(self) -> Snapshot:
        """The state as an operator sees it."""
        return snapshot(self._scheduler.books, self._crew.running, self.clock())

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
        return await self._crew.gone(self._crew.running.values(), timeout_s)

    async def busy(self) -> None:
        """Wait until there is a worker, or somebody waits for one, or a GPU is to be looked at."""
        while (
            not self._crew.running and not self._scheduler.books.waiting and not self.memory_returns
        ):
            self._is_busy.clear()
            await self._is_busy.wait()

    @property
    def memory_returns(self) -> bool:
        """Whether a GPU is to give memory back of workers that are gone."""
        return self._scheduler.books.ledger.returns_until < float("inf")

    async def changed(self, timeout_s: float) -> bool:
        """Wait until a worker comes up or goes; False if that takes longer."""
        return await self._crew.changed(timeout_s)

    def own_endpoints(self) -> dict[str, Endpoint]:
        """Where the ready workers answer that swapper has started, by model."""
        workers = self._scheduler.books.workers.values()
        return self._crew.own_endpoints(w.model for w in workers if w.state in SERVING_STATES)

    def pids(self) -> dict[ev.WorkerId, int]:
        """The first process of each worker that has one."""
        return self._crew.pids()

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
                    self._is_busy.set()
                    self._crew.start(command, self._launches[command.model])
                case ev.StopWorker(worker_id, grace_s):
                    self._crew.stop(worker_id, grace_s)
                case ev.SetThreads():
                    self._orders.set_threads(command)
                case ev.SleepWorker():
                    self._orders.sleep(command)
                case ev.WakeWorker():
                    self._orders.wake(command)
                case ev.Measured():
                    if (launch := self._launches.get(command.model)) is not None:
                        self._memory.remember(launch, command)
                case ev.Decided(model, action, reason, cause):
                    self.decided[model, action, cause] += 1
                    log.info(action, model=model, reason=reason)
                    self._memory.log_decision(model, action, reason)

    def _grant(self, grant: ev.Grant) -> None:
        ticket = self.tickets[grant.request_id]
        running = self._crew.running[grant.worker_id]
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
