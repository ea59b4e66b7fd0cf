"""Who gets which worker, whose worker starts, who moves out: every decision, in one place.

`handle` takes what happened and the time, notes it, runs the one decision tree (`_plan`) over the
whole state and returns the commands to carry out. Nothing else changes state, nothing is decided
anywhere else, and no call blocks. The tree, for each model that somebody waits for, oldest first:

  1. A READY worker with room takes the request at once.
  2. A worker on its way up or out is waited for; a model in back-off refuses.
  3. There is room: start a worker. Several may load at once.
  4. There is no room: the cheapest movable workers make it. Idle ones stop, busy ones drain and take
     nothing new. Until then the room that is there, or coming, stays claimed for this model, so that
     nobody who came later can take it.

Before it, requests past their deadline are refused and whoever drained for a model that nobody wants
any more serves again; after it, drained workers and those idle past their ttl stop.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import assert_never

from swapper.core import events as ev
from swapper.core.cores import shares
from swapper.core.demand import Demand
from swapper.core.eviction import Candidate, choose_victims
from swapper.core.fitting import Amount, Layout, Price, choose, fits
from swapper.core.ledger import BrokenBooks, Ledger
from swapper.core.queue import Waiting
from swapper.core.registry import Bytes, Registry, Variant
from swapper.core.room import Room
from swapper.core.tenure import movable_at
from swapper.core.worker import (
    GONE_STATES,
    LEAVING_STATES,
    SERVING_STATES,
    Worker,
    WorkerState,
)
from swapper.errors import RefusalKind

Learned = Mapping[tuple[str, str], tuple[float, Bytes]]  # (model, variant key) -> load_s, memory
OUT_OF_MEMORY_GROWTH = 1.2  # of an estimate that proved too small
PRIORITY_S = 60.0  # of waiting that one more of priority counts for: ahead, but never for ever
CORES_LINGER_S = 2.0  # a worker idle for less still counts as busy when cores are shared
NEVER_EVICTED_FOR_CHAT = frozenset({"embedding", "completion"})


class Scheduler:
    """Owner of all scheduling state. Not thread-safe: one dispatcher holds it."""

    def __init__(self, registry: Registry, learned: Learned | None = None) -> None:
        self.registry = registry
        self.ledger = Ledger(_budgets(registry))
        self.workers: dict[str, Worker] = {}  # by model; at most one each
        self.in_flight: dict[ev.RequestId, tuple[Worker, str]] = {}  # with the key's holder
        self.waiting: dict[ev.RequestId, tuple[str, Waiting]] = {}  # with the model
        self.demand: dict[str, Demand] = {}
        self._memory: dict[tuple[str, str], Bytes] = {}
        self._wanted: dict[
            str, None
        ] = {}  # models with a queue or a wish: all that a plan looks at
        self._shutting_down = False
        self._blocked_until = math.inf  # when a worker becomes movable that somebody waits for
        self._cores_settle_at = math.inf  # when a worker stops counting as busy with cores
        self._due_at = math.inf  # when `_settle` has something to do by itself
        self._is_settled = True
        self._generation = itertools.count(1)
        self._commands: list[ev.Command] = []
        self._add_models(learned or {})

    def _add_models(self, learned: Learned) -> None:
        for name, spec in self.registry.models.items():
            self.demand[name] = Demand(spec, load_s=spec.load_s)
        for (model, key), (load_s, memory) in learned.items():
            if model in self.demand:
                self.demand[model].load_s = load_s
                self._memory[model, key] = memory

    # ------------------------------------------------------------ what happened

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Note one event and return what is to be done now, in order. Raises on a broken book."""
        match event:
            case ev.RequestArrived():
                self._on_arrived(event, now)
            case ev.RequestEnded():
                self._on_ended(event, now)
            case ev.WorkerReady():
                self._on_ready(event, now)
            case ev.WorkerMeasured():
                self._on_measured(event)
            case ev.WorkerExited():
                self._on_exited(event, now)
            case ev.DevicesRead():
                self.ledger.observe(event)
            case ev.LoadRequested():
                self._on_load_requested(event, now)
            case ev.UnloadRequested():
                self._on_unload_requested(event)
            case ev.RegistryReplaced():
                self._on_registry_replaced(event)
            case ev.ShutdownRequested():
                self._on_shutdown()
            case ev.TimePassed():
                pass
            case _:
                assert_never(event)
        self._plan(now)
        commands, self._commands = self._commands, []
        return commands

    def next_deadline(self) -> float:
        """When `TimePassed` is due at the latest; infinity when nothing is to happen by itself."""
        return min(self._deadlines(), default=math.inf)

    def _deadlines(self) -> Iterable[float]:
        yield self._blocked_until
        for model in self._wanted:
            queue = self.demand[model].queue
            if queue:
                yield queue.first_deadline
        yield self._due_at
        yield self.ledger.returns_until

    def _on_arrived(self, event: ev.RequestArrived, now: float) -> None:
        request_id, model = event.request_id, event.model
        if request_id in self.waiting or request_id in self.in_flight:
            raise BrokenBooks(f"request {request_id} arrived twice")
        demand = self.demand[model]
        worker = self.workers.get(model)
        if not demand.queue and (worker is None or worker.num_in_flight == 0):
            demand.learn_pause(now)
        demand.count_use(now)
        arrived_at = now if event.arrived_at is None else event.arrived_at
        deadline = arrived_at + demand.spec.queue_timeout_s
        waiting = Waiting(request_id, arrived_at, deadline, event.priority, event.key)
        self.waiting[request_id] = model, waiting
        demand.queue.add(waiting)
        self._wanted[model] = None
        if self._shutting_down:
            self._refuse(demand, waiting, "shutting_down", "swapper is shutting down", 5.0)
        elif len(demand.queue) > demand.spec.queue_limit:
            self._refuse_full(demand, waiting)

    def _on_ended(self, event: ev.RequestEnded, now: float) -> None:
        if (running := self.in_flight.pop(event.request_id, None)) is not None:
            self._give_back(*running, now)
        elif (found := self.waiting.pop(event.request_id, None)) is not None:
            model, waiting = found
            self.demand[model].queue.remove(waiting)
        # Otherwise it was refused before: its end is no news.

    def _give_back(self, worker: Worker, key: str, now: float) -> None:
        worker.in_flight[key] -= 1
        if not worker.in_flight[key]:
            del worker.in_flight[key]
        worker.num_in_flight -= 1
        worker.num_served += 1
        if worker.num_in_flight == 0:
            self._is_settled = False
            worker.idle_since = now
            if worker.model in self.demand:
                self.demand[worker.model].last_end = now

    def _on_ready(self, event: ev.WorkerReady, now: float) -> None:
        worker = self._worker(event.worker_id)
        if worker is None or worker.state is not WorkerState.STARTING:
            return  # it came up while it was being stopped
        worker.move(WorkerState.READY)
        self._is_settled = False
        worker.ready_at = worker.idle_since = now
        worker.measured = dict(event.measured)
        # What a worker has not touched yet does not count in its measure, so before it has answered
        # anything a measure can only raise the charge.
        held = self.ledger.charge_of(worker.id)
        larger = {k: v for k, v in event.measured.items() if v > held.get(k, v)}
        self._learn_memory(worker, larger)
        demand = self.demand[worker.model]
        demand.recover()
        demand.wanted_since = demand.room_since = None
        demand.load_s = load_s = now - worker.started_at
        self._do(ev.Measured(worker.model, worker.variant.settings, load_s, larger))

    def _on_measured(self, event: ev.WorkerMeasured) -> None:
        worker = self._worker(event.worker_id)
        if worker is None or worker.state not in SERVING_STATES:
            return
        held = self.ledger.charge_of(worker.id)
        known = {n: s for n, s in event.memory.items() if n in held or self.ledger.budget(n)}
        if not known or all(worker.measured.get(name) == size for name, size in known.items()):
            return
        worker.measured = known
        self._learn_memory(worker, known)
        load_s = self.demand[worker.model].load_or()
        self._do(ev.Measured(worker.model, worker.variant.settings, load_s, known))

    def _learn_memory(self, worker: Worker, measured: Bytes) -> None:
        self.ledger.correct(worker.id, measured)
        key = worker.model, worker.variant.key
        self._memory[key] = {**self._memory.get(key, {}), **measured}

    def _on_exited(self, event: ev.WorkerExited, now: float) -> None:
        worker = self._worker(event.worker_id)
        if worker is None:
            return
        was_starting = worker.state is WorkerState.STARTING
        was_asked = worker.state is WorkerState.STOPPING
        worker.move(WorkerState.STOPPED if was_asked else WorkerState.FAILED)
        del self.workers[worker.model]
        self._is_settled = False
        self.ledger.release(worker.id, now)
        self._forget_removed()
        if worker.model not in self.demand:
            return
        if was_asked:
            self.demand[worker.model].turn_ended_at = now
            if worker.num_served:
                self.demand[worker.model].serve_out()
        else:
            failure = event.failure or ev.Failure("crashed", f"{worker.model} ended by itself")
            self._on_failed(worker, failure, now, was_starting)

    def _on_failed(
        self, worker: Worker, failure: ev.Failure, now: float, was_starting: bool
    ) -> None:
        demand = self.demand[worker.model]
        if was_starting and failure.kind == "out_of_memory":
            figures = _sizes(self._needs(worker.model, worker.variant))
            reason = f"{failure.reason.rstrip('.')} (set aside for it: {figures})"
            failure = replace(failure, reason=reason)
        self._note(worker.model, "fail", f"{failure.kind}: {failure.reason}")
        if was_starting and failure.kind == "out_of_memory" and not demand.short_of_memory:
            self._grow_estimate(worker)
            demand.short_of_memory = True
            return  # planned again at once, with the larger figure
        born = worker.started_at if worker.ready_at is None else worker.ready_at
        demand.fail(failure, now, lived_s=now - born, was_ready=not was_starting)
        demand.short_of_memory = False
        demand.wanted_since = None
        if was_starting:
            self._refuse_failed(demand, now)

    def _grow_estimate(self, worker: Worker) -> None:
        """After a load that ran out of memory. Another layout may be the best then; where there is
        none, the figure grows no further than to all that can be had."""
        demand, key = self.demand[worker.model], (worker.model, worker.variant.key)
        known = {**worker.variant.needs, **self._memory.get(key, {})}
        grown = {name: int(size * OUT_OF_MEMORY_GROWTH) for name, size in known.items()}
        self._memory[key] = grown
        most = self._most(demand)
        if not any(fits(layout.needs, most) for layout in self._layouts(demand)):
            capped = {name: max(known[name], min(grown[name], most(name))) for name in known}
            self._memory[key] = capped

    def _on_load_requested(self, event: ev.LoadRequested, now: float) -> None:
        demand = self.demand[event.model]
        if event.model not in self.workers and not self._shutting_down:
            demand.wanted_since = now
            demand.retry_at = -math.inf  # whoever asks by hand wants it tried
            self._wanted[event.model] = None

    def _on_unload_requested(self, event: ev.UnloadRequested) -> None:
        demand = self.demand[event.model]
        demand.wanted_since = None
        reason = f"{event.model} was unloaded while the request waited; send it again to load it"
        for waiting in list(demand.queue):
            self._refuse(demand, waiting, "unloaded", reason, 1.0)
        worker = self.workers.get(event.model)
        if worker is not None:
            self._send_off(worker, "unloaded on request")

    def _on_registry_replaced(self, event: ev.RegistryReplaced) -> None:
        old, self.registry = self.registry, event.registry
        self.ledger.set_budgets(_budgets(event.registry))
        for name, spec in event.registry.models.items():
            if name not in self.demand:
                self.demand[name] = Demand(spec, load_s=spec.load_s)
            self.demand[name].spec = spec
        removed = old.models.keys() - event.registry.models.keys()
        for name in removed:
            self._refuse_removed(self.demand[name])
        for name in sorted(removed | event.changed):
            if name in event.changed:
                self._forget_measures(name)
            if (worker := self.workers.get(name)) is not None:
                self._send_off(worker, "its configuration changed")
        self._forget_removed()

    def _forget_measures(self, name: str) -> None:
        """Of a model that is served in another way now; what failed before may work."""
        for key in [key for key in self._memory if key[0] == name]:
            del self._memory[key]
        self.demand[name].retry_at = -math.inf

    def _forget_removed(self) -> None:
        """Models that are configured no more, once their worker is gone."""
        for name in self.demand.keys() - self.registry.models.keys() - self.workers.keys():
            del self.demand[name]
            self._wanted.pop(name, None)

    def _on_shutdown(self) -> None:
        self._shutting_down = True
        for model, waiting in list(self.waiting.values()):
            demand = self.demand[model]
            self._refuse(demand, waiting, "shutting_down", "swapper is shutting down", 5.0)
        for demand in self.demand.values():
            demand.wanted_since = None
        for worker in list(self.workers.values()):
            self._send_off(worker, "shutting down")

    # ------------------------------------------------------------ the decision tree

    def _plan(self, now: float) -> None:
        self._blocked_until = math.inf
        self.ledger.stop_waiting(now)
        if self._wanted:
            self._refuse_late(now)
            self._forget_unwanted()
        self._spare_needless()
        if self._wanted:
            room = Room(self.ledger, self.workers.values())
            for model in sorted(self._wanted, key=self._waits_since):
                self._serve(model, room, now)
            self._forget_unwanted()
        if not self._is_settled or now >= self._due_at:
            self._settle(now)

    def _settle(self, now: float) -> None:
        """What follows from the workers' states alone. Not at every event: only when one has changed its
        state, fallen idle or got busy, or when something is due."""
        self._stop_done(now)
        self._share_cores(now)
        idle = [self.expires_at(worker) for worker in self.workers.values() if worker.is_idle]
        self._due_at = min(idle, default=math.inf)
        self._due_at = min(self._due_at, self._cores_settle_at)
        self._is_settled = True

    def _waits_since(self, model: str) -> tuple[float, str]:
        demand = self.demand[model]
        if demand.waits_since is None:
            return math.inf, model
        return demand.waits_since - PRIORITY_S * demand.priority, model

    def _forget_unwanted(self) -> None:
        for model in [m for m in self._wanted if self.demand[m].waits_since is None]:
            del self._wanted[model]
            self.demand[model].room_since = None

    def _refuse_late(self, now: float) -> None:
        for model in self._wanted:
            demand = self.demand[model]
            if not demand.queue or demand.queue.first_deadline > now:
                continue
            for waiting in demand.queue.late(now):
                reason = f"waited {now - waiting.arrived_at:.0f} s for {model}: {self._why(model)}"
                self._refuse(demand, waiting, "timeout", reason, 5.0)

    def _spare_needless(self) -> None:
        """A worker that drains for a model that nobody wants any more, or that found room elsewhere,
        serves again."""
        for worker in self.workers.values():
            beneficiary = worker.draining_for
            if beneficiary is None:
                continue
            if beneficiary not in self._wanted or beneficiary in self.workers:
                worker.draining_for = None
                if worker.state is WorkerState.DRAINING:
                    self._note(worker.model, "spare", f"{beneficiary} does not need the room")
                    worker.move(WorkerState.READY)
                    self._is_settled = False

    def _serve(self, model: str, room: Room, now: float) -> None:
        """One model's turn in the tree; the numbers are those of the module's head."""
        demand = self.demand[model]
        worker = self.workers.get(model)
        if worker is not None:
            if worker.state is WorkerState.READY:  # 1
                self._grant_waiting(worker, demand, now)
            return  # 2
        if now < demand.retry_at:  # 2
            self._refuse_failed(demand, now)
            return
        layout = self._layout(demand, room, now)
        if layout is None:
            self._refuse_too_large(demand)
        elif room.fits(layout.needs):  # 3
            self._start(demand, layout.variant, layout.needs, now)
        else:  # 4
            self._make_room(demand, layout.needs, room, now)
            room.claim(layout.needs)

    def _grant_waiting(self, worker: Worker, demand: Demand, now: float) -> None:
        demand.wanted_since = None
        while demand.queue and worker.num_in_flight < demand.spec.parallel:
            waiting = demand.queue.pop(worker.in_flight.__getitem__)
            del self.waiting[waiting.request_id]
            self.in_flight[waiting.request_id] = worker, waiting.key
            worker.in_flight[waiting.key] += 1
            worker.num_in_flight += 1
            self._is_settled = self._is_settled and worker.idle_since is None
            worker.idle_since = None
            self._do(self._grant(waiting, worker))

    def _grant(self, waiting: Waiting, worker: Worker) -> ev.Grant:
        ready_at = worker.ready_at or worker.started_at
        load_s = max(0.0, ready_at - max(worker.started_at, waiting.arrived_at))
        swap_s = max(0.0, worker.started_at - max(worker.room_since, waiting.arrived_at))
        return ev.Grant(waiting.request_id, worker.id, swap_s, load_s)

    def _start(self, demand: Demand, variant: Variant, needs: Bytes, now: float) -> None:
        model = demand.spec.name
        worker_id = f"{model}#{next(self._generation)}"
        self.ledger.reserve(worker_id, needs)
        since = now if demand.room_since is None else demand.room_since
        worker = Worker(worker_id, model, variant, now, since, reserved=needs)
        self.workers[model] = worker
        timeout = demand.spec.load_timeout_s
        self._is_settled = False
        settings = {**variant.settings, **self._threads_at_start(worker, now)}
        self._note(model, "start", f"reserved {_sizes(needs)}")
        self._do(ev.StartWorker(worker_id, model, needs, settings, timeout))

    def _make_room(self, demand: Demand, needs: Bytes, room: Room, now: float) -> None:
        model = demand.spec.name
        if demand.room_since is None:
            demand.room_since = now
        missing = room.missing(needs)
        if not missing:
            return  # enough is on its way out
        for victim in self._victims(demand, missing, now)[0] or ():
            worker = self._worker(victim.worker_id)
            assert worker is not None
            room.expect(self.ledger.charge_of(worker.id))
            self._send_off(worker, f"{model} needs {_sizes(missing)}", makes_room_for=model)

    def _victims(
        self, waiting: Demand, missing: Bytes, now: float
    ) -> tuple[tuple[Candidate, ...] | None, float]:
        """Whom to move out now; where that is not possible, when to ask again."""
        movable, blocked_until = self._movable(waiting, missing, now)
        victims = choose_victims(missing, movable)
        if victims is None:
            self._blocked_until = min(self._blocked_until, blocked_until)
        return victims, blocked_until

    def _movable(
        self, waiting: Demand, missing: Bytes, now: float
    ) -> tuple[list[Candidate], float]:
        """Who may be moved out now, and when the next one may be."""
        candidates, blocked_until = [], math.inf
        residents = [w for w in self.workers.values() if self._could_go(w, waiting, missing)]
        for worker in residents:
            resident = self.demand[worker.model]
            holds = self.ledger.charge_of(worker.id)
            at = movable_at(worker, resident, waiting, len(residents))
            if at <= now:
                cost_s = resident.load_or() * (resident.uses(now) + 1e-3)
                candidates.append(Candidate(worker.id, holds, cost_s, worker.is_idle))
            else:
                blocked_until = min(blocked_until, at)
        return candidates, blocked_until

    def _send_off(self, worker: Worker, reason: str, makes_room_for: str | None = None) -> None:
        """Stop the worker, when what it has in flight is done."""
        self._is_settled = False
        if worker.state is WorkerState.DRAINING:
            worker.draining_for = makes_room_for
        elif worker.num_in_flight:
            worker.move(WorkerState.DRAINING)
            worker.draining_for = makes_room_for
            self._note(worker.model, "drain", f"{reason}; {worker.num_in_flight} in flight")
        elif worker.state in (WorkerState.STARTING, WorkerState.READY):
            self._note(worker.model, "stop", reason)
            self._stop(worker)

    def _stop_done(self, now: float) -> None:
        for worker in self.workers.values():
            if worker.state is WorkerState.DRAINING and worker.num_in_flight == 0:
                self._stop(worker)
            elif worker.is_idle and self.expires_at(worker) <= now:
                self._note(worker.model, "expire", "idle past its ttl")
                self._stop(worker)

    def _stop(self, worker: Worker) -> None:
        worker.move(WorkerState.STOPPING)
        self._do(ev.StopWorker(worker.id, self.demand[worker.model].spec.stop_grace_s))

    # ------------------------------------------------------------ cores

    def _busy_with_cores(self, now: float) -> list[Worker]:
        """Workers that compute on the CPU now, or did a moment ago: a pause is not worth a change."""
        return [
            worker
            for worker in self.workers.values()
            if self.demand[worker.model].spec.shares_cores
            and worker.state is not WorkerState.STOPPING
            and (worker.idle_since is None or worker.idle_since + CORES_LINGER_S > now)
        ]

    def _threads_at_start(self, worker: Worker, now: float) -> dict[str, object]:
        if not self.registry.cores or not self.demand[worker.model].spec.shares_cores:
            return {}
        busy = [w.id for w in self._busy_with_cores(now)]
        worker.threads = shares(busy, self.registry.cores)[worker.id]
        return {"threads": worker.threads}

    def _share_cores(self, now: float) -> None:
        """Tell running workers their share, where it changed."""
        self._cores_settle_at = math.inf
        if not self.registry.cores or not self.workers:
            return
        busy = self._busy_with_cores(now)
        given = shares([worker.id for worker in busy], self.registry.cores)
        for worker in busy:
            if worker.state in SERVING_STATES and worker.threads != given[worker.id]:
                worker.threads = given[worker.id]
                self._do(ev.SetThreads(worker.id, worker.threads))
        if len(busy) > 1:
            idle = [w.idle_since for w in busy if w.idle_since is not None]
            self._cores_settle_at = min(idle, default=math.inf) + CORES_LINGER_S

    # ------------------------------------------------------------ small questions

    def expires_at(self, worker: Worker) -> float:
        """When an idle worker is unloaded for being idle; infinity while it is not, or with ttl 0."""
        ttl_s = self.demand[worker.model].spec.ttl_s
        if worker.idle_since is None or ttl_s <= 0:
            return math.inf
        return worker.idle_since + ttl_s

    def _worker(self, worker_id: ev.WorkerId) -> Worker | None:
        worker = self.workers.get(worker_id.rpartition("#")[0])
        return worker if worker is not None and worker.id == worker_id else None

    def _needs(self, model: str, variant: Variant) -> Bytes:
        """What a start takes: the estimate, or what was measured; and its places in groups."""
        spec = self.demand[model].spec
        groups = {f"group:{name}": 1 for name in spec.groups if name in self.registry.limits}
        return {**variant.needs, **self._memory.get((model, variant.key), {}), **groups}

    def _layout(self, demand: Demand, room: Room, now: float) -> Layout | None:
        """How to lay the model out, as things stand; None if it could never be loaded."""

        def price(needs: Bytes) -> Price:
            victims, blocked_until = self._victims(demand, room.missing(needs), now)
            if victims is None:
                return math.inf, blocked_until
            return sum(not v.is_idle for v in victims), sum(v.cost_s for v in victims)

        return choose(self._layouts(demand), self._most(demand), room.now, price)

    def _layouts(self, demand: Demand) -> list[Layout]:
        variants, name = demand.spec.variants, demand.spec.name
        return [Layout(variant, self._needs(name, variant)) for variant in variants]

    def _most(self, demand: Demand) -> Amount:
        """What the model could have if everything movable were moved."""
        staying = [
            self.ledger.charge_of(w.id)
            for w in self.workers.values()
            if self._stays(self.demand[w.model], demand) and w.state not in LEAVING_STATES
        ]
        return lambda name: self.ledger.budget(name) - sum(c.get(name, 0) for c in staying)

    def _could_go(self, worker: Worker, waiting: Demand, missing: Bytes) -> bool:
        """Whether the worker holds what is missing and may in time be moved out for it."""
        if worker.state is not WorkerState.READY or self._stays(self.demand[worker.model], waiting):
            return False
        holds = self.ledger.charge_of(worker.id)
        return any(holds.get(name, 0) for name in missing)

    def _stays(self, resident: Demand, waiting: Demand) -> bool:
        """Whether the resident model is never moved out for the waiting one."""
        role, other = resident.spec.role, waiting.spec.role
        return resident.spec.pin or (role in NEVER_EVICTED_FOR_CHAT and other == "chat")

    def _why(self, model: str) -> str:
        """What a request that waited too long waited for."""
        worker = self.workers.get(model)
        if worker is None:
            return f"no room came free for it{self._held_by_others(model)}"
        return {
            WorkerState.STARTING: "it is still loading",
            WorkerState.READY: "all its places are taken",
        }.get(worker.state, "its worker is on its way out")

    def _held_by_others(self, model: str) -> str:
        names = {name for v in self.demand[model].spec.variants for name in v.needs}
        held = {n: self.ledger.budget(n) - self.ledger.capacity(n) for n in sorted(names)}
        held = {name: size for name, size in held.items() if size > 0}
        return f"; other programs hold {_sizes(held)} of what it may use" if held else ""

    # ------------------------------------------------------------ refusals and notes

    def _refuse(
        self,
        demand: Demand,
        waiting: Waiting,
        kind: RefusalKind,
        reason: str,
        retry_after_s: float,
        cause: str | None = None,
    ) -> None:
        del self.waiting[waiting.request_id]
        demand.queue.remove(waiting)
        self._do(ev.Reject(waiting.request_id, kind, reason, retry_after_s, cause))

    def _refuse_full(self, demand: Demand, waiting: Waiting) -> None:
        limit = demand.spec.queue_limit
        reason = f"{limit} requests wait for {demand.spec.name} already; try again later"
        self._refuse(demand, waiting, "queue_full", reason, max(1.0, demand.load_or()))

    def _refuse_failed(self, demand: Demand, now: float) -> None:
        failure = demand.failure or ev.Failure("crashed", "its worker ended")
        demand.wanted_since = None
        reason = f"{demand.spec.name} could not be loaded: {failure.reason}"
        retry_after_s = max(1.0, demand.retry_at - now)
        for waiting in list(demand.queue):
            cause = failure.kind
            self._refuse(demand, waiting, "load_failed", reason, retry_after_s, cause)

    def _refuse_removed(self, demand: Demand) -> None:
        demand.wanted_since = None
        reason = f"{demand.spec.name} is not configured any more; GET /v1/models lists the models"
        for waiting in list(demand.queue):
            self._refuse(demand, waiting, "unloaded", reason, 1.0)

    def _refuse_too_large(self, demand: Demand) -> None:
        needs = self._needs(demand.spec.name, demand.spec.variants[-1])
        budgets = {name: self.ledger.budget(name) for name in needs}
        reason = (
            f"{demand.spec.name} needs {_sizes(needs)}, and at most {_sizes(budgets)} can be had "
            "beside the pinned models; give it a smaller context or swapper more memory"
        )
        self._note(demand.spec.name, "refuse", reason)
        demand.wanted_since = None
        for waiting in list(demand.queue):
            self._refuse(demand, waiting, "too_large", reason, 60.0)

    def _note(self, model: str, action: str, reason: str) -> None:
        self._do(ev.Decided(model, action, reason))

    def _do(self, command: ev.Command) -> None:
        self._commands.append(command)

    # ------------------------------------------------------------ integrity

    def check_integrity(self) -> None:
        """Raise BrokenBooks if two parts of the state disagree. For tests and idle moments."""
        counted = {id(w): 0 for w in self.workers.values()}
        for worker, _ in self.in_flight.values():
            if worker.state not in GONE_STATES:
                counted[id(worker)] += 1
        for worker in self.workers.values():
            self._check(counted[id(worker)] == worker.num_in_flight, f"{worker.id} in flight")
            self._check(
                bool(self.ledger.charge_of(worker.id)) or not worker.variant.needs, worker.id
            )
            is_busy = worker.num_in_flight > 0
            self._check(not is_busy or worker.state in SERVING_STATES, f"{worker.id} busy")
            keys = sum(worker.in_flight.values())
            self._check(keys == worker.num_in_flight, f"{worker.id} in flight by key")
        queued = {w.request_id: (m, w) for m, d in self.demand.items() for w in d.queue}
        self._check(queued == self.waiting, "queues and the index of waiting requests")
        self._check({m for m, _ in queued.values()} <= set(self._wanted), "somebody waits unseen")

    def _check(self, holds: bool, what: str) -> None:
        if not holds:
            raise BrokenBooks(f"books disagree: {what}")


def _budgets(registry: Registry) -> dict[str, int]:
    """Bytes by device, and places by group."""
    groups = {f"group:{name}": limit for name, limit in registry.limits.items()}
    return {**registry.budgets, **groups}


def _sizes(needs: Bytes) -> str:
    """What is needed as a person reads it: "host 1.20 GiB, a place in max_loaded"."""
    return ", ".join(_size(name, need) for name, need in needs.items()) or "nothing"


def _size(name: str, need: int) -> str:
    if name.startswith("group:"):
        return f"a place in {name.removeprefix('group:') or 'max_loaded'}"
    return f"{name} {need / 2**30:.2f} GiB" if need >= 2**30 else f"{name} {need / 2**20:.0f} MiB"
