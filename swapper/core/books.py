"""All scheduling state, in one object, and the small questions that its own entries answer.

`bookkeeping` enters what happened, `scheduler` decides what follows; both leave what is to be done in
`commands`. Nobody else writes here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TypeAlias

from swapper.core import events as ev
from swapper.core.demand import Demand
from swapper.core.fitting import Layout
from swapper.core.ledger import BrokenBooks, Ledger
from swapper.core.queue import Waiting
from swapper.core.registry import GROUP, HOST, Bytes, Registry, Variant
from swapper.core.worker import GONE_STATES, SERVING_STATES, Worker, WorkerState

Learned: TypeAlias = Mapping[tuple[str, str], ev.Measured]  # by model and variant key


class Books:
    """Owner of all scheduling state. Not thread-safe: one scheduler holds it."""

    def __init__(self, registry: Registry, learned: Learned) -> None:
        self.registry = registry
        self.ledger = Ledger(budgets(registry))
        self.workers: dict[str, Worker] = {}  # by model; at most one each
        self.in_flight: dict[
            ev.RequestId, tuple[Worker, str, float]
        ] = {}  # with key's holder, grant
        self.waiting: dict[ev.RequestId, tuple[str, Waiting]] = {}  # with the model
        self.demand: dict[str, Demand] = {}
        self.wanted: dict[str, None] = {}  # models with a queue or a wish: all that a plan looks at
        self.memory: dict[tuple[str, str], Bytes] = {}  # measured, by model and variant key
        self.asleep: dict[tuple[str, str], Bytes] = {}  # what they hold asleep, by the same
        self.loans: dict[str, float] = {}  # until when, by loan
        self.pins: dict[str, bool] = {}  # what was decided by hand, by model
        self.may_be_short = False  # more may be charged than is ours by now
        self.is_shutting_down = False
        self.is_settled = True  # no worker has changed its state or got busy or idle since it was
        self.commands: list[ev.Command] = []
        self._generation = itertools.count(1)
        for name in registry.models:
            self.expect(name)
        for (model, key), measured in learned.items():
            if model in self.demand:
                self.demand[model].load_s = measured.load_s
                self.demand[model].wake_s = measured.wake_s
                self.memory[model, key] = measured.memory
                if measured.asleep:
                    self.asleep[model, key] = measured.asleep

    def expect(self, name: str) -> None:
        """Begin to remember a configured model, or take its new configuration over."""
        spec = self.registry.models[name]
        if name in self.demand:
            self.demand[name].spec = spec
        else:
            self.demand[name] = Demand(spec, load_s=spec.load_s)

    def worker(self, worker_id: ev.WorkerId) -> Worker | None:
        """The worker of that id, unless it is gone."""
        worker = self.workers.get(worker_id.rpartition("#")[0])
        return worker if worker is not None and worker.id == worker_id else None

    def next_worker_id(self, model: str) -> ev.WorkerId:
        """Never the same twice."""
        return f"{model}#{next(self._generation)}"

    def needs(self, model: str, variant: Variant) -> Bytes:
        """What a start takes: the estimate, or what was measured; and its places in groups."""
        spec = self.demand[model].spec
        groups = {f"{GROUP}{name}": 1 for name in spec.groups if name in self.registry.limits}
        return {**variant.needs, **self.memory.get((model, variant.key), {}), **groups}

    def layouts(self, model: str) -> list[Layout]:
        """Every way to lay the model out, with what it takes as far as is known."""
        variants = self.demand[model].spec.variants
        return [Layout(variant, self.needs(model, variant)) for variant in variants]

    def is_pinned(self, model: str) -> bool:
        """Whether the model is never moved out for another: by hand, or else by its configuration."""
        return self.pins.get(model, self.demand[model].spec.pin)

    def lacks_place(self, model: str) -> bool:
        """Whether it has no worker, or one that sleeps."""
        worker = self.workers.get(model)
        return worker is None or worker.is_asleep

    def holds_asleep(self, worker: Worker) -> Bytes:
        """What the worker would hold asleep: as measured, or all that it holds now, on the host."""
        known = self.asleep.get((worker.model, worker.variant.key))
        if known is not None:
            return known
        held = self.ledger.charge_of(worker.id).items()
        return {HOST: sum(size for name, size in held if not name.startswith(GROUP))}

    def expires_at(self, worker: Worker) -> float:
        """When a worker at rest is unloaded for it; infinity while it is not, or while somebody waits
        for room to wake it in."""
        is_awaited = worker.is_asleep and worker.model in self.wanted
        if worker.idle_since is None or is_awaited:
            return math.inf
        return worker.idle_since + self.stay_of(worker)

    def stay_of(self, worker: Worker) -> float:
        """How long the worker may be at rest until it is unloaded; infinity with ttl 0. What a client
        chose may not take a pinned model away any sooner."""
        ttl_s = self.demand[worker.model].spec.ttl_s or math.inf
        if worker.stays_s is None:
            return ttl_s
        return max(ttl_s, worker.stays_s) if self.is_pinned(worker.model) else worker.stays_s

    def note(self, model: str, action: str, reason: str, cause: str = "") -> None:
        """A line for the decision log; `cause`: see `Decided`."""
        self.commands.append(ev.Decided(model, action, reason, cause))

    def take_commands(self) -> list[ev.Command]:
        """What is to be done, in order; each of them once."""
        commands, self.commands = self.commands, []
        return commands

    def check_integrity(self) -> None:
        """Raise BrokenBooks if two parts of the state disagree. For tests and idle moments."""
        counted = {id(w): 0 for w in self.workers.values()}
        for worker, _, _ in self.in_flight.values():
            if worker.state not in GONE_STATES:
                counted[id(worker)] += 1
        for worker in self.workers.values():
            _check(counted[id(worker)] == worker.num_in_flight, f"{worker.id} in flight")
            _check(bool(self.ledger.charge_of(worker.id)) or not worker.variant.needs, worker.id)
            _check(not worker.is_asleep or worker.state is WorkerState.SLEEPING, worker.id)
            is_busy = worker.num_in_flight > 0
            _check(not is_busy or worker.state in SERVING_STATES, f"{worker.id} busy")
            keys = sum(worker.in_flight.values())
            _check(keys == worker.num_in_flight, f"{worker.id} in flight by key")
        queued = {w.request_id: (m, w) for m, d in self.demand.items() for w in d.queue}
        _check(queued == self.waiting, "queues and the index of waiting requests")
        _check({m for m, _ in queued.values()} <= set(self.wanted), "somebody waits unseen")
        _check(self.pins.keys() <= self.demand.keys(), "a model is pinned that is not known")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenBooks(f"books disagree: {what}")


def budgets(registry: Registry) -> dict[str, int]:
    """Bytes by device, and places by group."""
    groups = {f"{GROUP}{name}": limit for name, limit in registry.limits.items()}
    return {**registry.budgets, **groups}
