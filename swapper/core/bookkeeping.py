"""What each event changes in the books, before anything is decided.

One function for each event. What an event forces by itself is done here too: workers of a removed
model are sent off, those who wait for a model that cannot be loaded are refused.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import assert_never

from swapper.core import events as ev
from swapper.core import refusals
from swapper.core.books import Books, budgets
from swapper.core.demand import Demand
from swapper.core.departures import put_to_sleep, send_off, spare, stop
from swapper.core.fitting import fits
from swapper.core.ledger import BrokenBooks
from swapper.core.making_room import most_for
from swapper.core.queue import Waiting
from swapper.core.registry import Bytes
from swapper.core.sizes import sizes
from swapper.core.worker import AWAY_STATES, SERVING_STATES, Worker, WorkerState

OUT_OF_MEMORY_GROWTH = 1.2  # of an estimate that proved too small


def enter(books: Books, event: ev.Event, now: float) -> None:
    """Note one event. Raises BrokenBooks on one that cannot be."""
    match event:
        case ev.RequestArrived():
            _arrived(books, event, now)
        case ev.RequestEnded():
            _ended(books, event, now)
        case ev.WorkerReady():
            _ready(books, event, now)
        case ev.WorkerMeasured():
            _measured(books, event)
        case ev.WorkerSlept():
            _slept(books, event, now)
        case ev.WorkerWoke():
            _woke(books, event, now)
        case ev.SleepFailed():
            _sleep_failed(books, event, now)
        case ev.WorkerExited():
            _exited(books, event, now)
        case ev.DevicesRead():
            books.ledger.observe(event)
            books.may_be_short = True
        case ev.LoadRequested():
            _load_requested(books, event, now)
        case ev.UnloadRequested():
            _unload_requested(books, event, now)
        case ev.SleepRequested():
            _sleep_requested(books, event, now)
        case ev.PinChosen():
            _pin_chosen(books, event)
        case ev.StayChosen():
            _stay_chosen(books, event)
        case ev.MemoryLent(loan, memory, until):
            books.loans[loan] = until
            books.ledger.lend(loan, memory)
            books.may_be_short = True
        case ev.MemoryTakenBack(loan):
            books.loans.pop(loan, None)
            books.ledger.take_back(loan)
        case ev.RegistryReplaced():
            _registry_replaced(books, event, now)
        case ev.ShutdownRequested():
            _shutdown_requested(books, now)
        case ev.TimePassed():
            pass
        case _:
            assert_never(event)


# ---------------------------------------------------------------- requests


def _arrived(books: Books, event: ev.RequestArrived, now: float) -> None:
    request_id, model = event.request_id, event.model
    if request_id in books.waiting or request_id in books.in_flight:
        raise BrokenBooks(f"request {request_id} arrived twice")
    demand = books.demand[model]
    worker = books.workers.get(model)
    if not demand.queue and (worker is None or worker.num_in_flight == 0):
        demand.learn_pause(now)
    demand.count_use(now)
    arrived_at = now if event.arrived_at is None else event.arrived_at
    deadline = arrived_at + demand.spec.queue_timeout_s
    waiting = Waiting(request_id, arrived_at, deadline, event.priority, event.key)
    books.waiting[request_id] = model, waiting
    demand.queue.add(waiting)
    books.wanted[model] = None
    if books.is_shutting_down:
        refusals.refuse_shutting_down(books, demand)
    elif len(demand.queue) > demand.spec.queue_limit:
        refusals.refuse_full(books, demand, waiting)


def _ended(books: Books, event: ev.RequestEnded, now: float) -> None:
    if (running := books.in_flight.pop(event.request_id, None)) is not None:
        _give_back(books, *running, now)
    elif (found := books.waiting.pop(event.request_id, None)) is not None:
        model, waiting = found
        books.demand[model].queue.remove(waiting)
    # Otherwise it was refused before: its end is no news.


def _give_back(books: Books, worker: Worker, key: str, granted_at: float, now: float) -> None:
    worker.in_flight[key] -= 1
    if not worker.in_flight[key]:
        del worker.in_flight[key]
    worker.num_in_flight -= 1
    worker.num_served += 1
    demand = books.demand.get(worker.model)
    if demand is not None:
        demand.learn_answer(now - granted_at)
    if worker.num_in_flight == 0:
        books.is_settled = False
        worker.idle_since = now
        if demand is not None:
            demand.last_end = now


# ---------------------------------------------------------------- workers


def _ready(books: Books, event: ev.WorkerReady, now: float) -> None:
    worker = books.worker(event.worker_id)
    if worker is None or worker.state is not WorkerState.STARTING:
        return  # it came up while it was being stopped
    worker.move(WorkerState.READY)
    books.is_settled = False
    worker.ready_at = worker.idle_since = now
    worker.measured = dict(event.measured)
    worker.can_sleep = event.can_sleep
    # What a worker has not touched yet does not count in its measure, so before it has answered
    # anything a measure can only raise the charge.
    held = books.ledger.charge_of(worker.id)
    larger = {k: v for k, v in event.measured.items() if v > held.get(k, v)}
    _learn_memory(books, worker, larger)
    demand = books.demand[worker.model]
    demand.recover()
    demand.wanted_since = demand.room_since = None
    demand.sleeps = event.can_sleep
    demand.load_s = load_s = now - worker.started_at
    books.commands.append(ev.Measured(worker.model, worker.variant.settings, load_s, larger))


def _measured(books: Books, event: ev.WorkerMeasured) -> None:
    worker = books.worker(event.worker_id)
    if worker is None or worker.state not in SERVING_STATES:
        return
    held = books.ledger.charge_of(worker.id)
    known = {n: s for n, s in event.memory.items() if n in held or books.ledger.budget(n)}
    if not known or all(worker.measured.get(name) == size for name, size in known.items()):
        return
    worker.measured = known
    _learn_memory(books, worker, known)
    _tell_measured(books, worker, known)


def _slept(books: Books, event: ev.WorkerSlept, now: float) -> None:
    worker = books.worker(event.worker_id)
    if worker is None or not worker.is_leaving or worker.state is not WorkerState.SLEEPING:
        return  # it is being stopped
    if event.memory:
        held = books.ledger.charge_of(worker.id)
        worker.asleep = {
            n: s for n, s in event.memory.items() if s and (n in held or books.ledger.budget(n))
        }
        books.asleep[worker.model, worker.variant.key] = worker.asleep
        _tell_measured(books, worker, {})
    worker.is_asleep = True
    books.is_settled = False
    books.ledger.shrink(worker.id, worker.asleep, now)
    if worker.model in books.demand:
        _end_turn(books.demand[worker.model], worker, now)


def _woke(books: Books, event: ev.WorkerWoke, now: float) -> None:
    worker = books.worker(event.worker_id)
    if worker is None or worker.state is not WorkerState.WAKING:
        return  # it is being stopped
    worker.move(WorkerState.READY)
    books.is_settled = False
    worker.ready_at = worker.idle_since = now
    demand = books.demand[worker.model]
    demand.wanted_since = demand.room_since = None
    demand.wake_s = now - worker.started_at
    if event.memory:  # what it kept for its sleep alone is free again
        needs = books.needs(worker.model, worker.variant)
        told = {n: s for n, s in event.memory.items() if n in needs or books.ledger.budget(n)}
        more = {name: max(size, needs.get(name, 0)) for name, size in told.items()}
        books.ledger.shrink(worker.id, {**needs, **more}, now)
    _tell_measured(books, worker, {})


def _sleep_failed(books: Books, event: ev.SleepFailed, now: float) -> None:
    worker = books.worker(event.worker_id)
    if worker is not None and worker.state in (WorkerState.SLEEPING, WorkerState.WAKING):
        stop(books, worker, event.reason, now)


def _tell_measured(books: Books, worker: Worker, memory: Bytes) -> None:
    """What of a worker that was loaded is worth remembering."""
    demand = books.demand[worker.model]
    asleep = books.asleep.get((worker.model, worker.variant.key), {})
    books.commands.append(
        ev.Measured(
            worker.model,
            worker.variant.settings,
            demand.load_s or 0.0,
            memory,
            demand.wake_s,
            asleep,
        )
    )


def _end_turn(demand: Demand, worker: Worker, now: float) -> None:
    """It has gone as it was asked to."""
    demand.turn_ended_at = now
    demand.gave_way_to = None if worker.errand is None else worker.errand.model
    if worker.stopping_since is not None:
        demand.stop_s = now - worker.stopping_since


def _learn_memory(books: Books, worker: Worker, measured: Bytes) -> None:
    books.ledger.correct(worker.id, measured)
    books.may_be_short = True
    key = worker.model, worker.variant.key
    books.memory[key] = {**books.memory.get(key, {}), **measured}


def _exited(books: Books, event: ev.WorkerExited, now: float) -> None:
    worker = books.worker(event.worker_id)
    if worker is None:
        return
    was_starting = worker.state is WorkerState.STARTING
    was_asked = worker.state is WorkerState.STOPPING
    worker.move(WorkerState.STOPPED if was_asked else WorkerState.FAILED)
    del books.workers[worker.model]
    books.is_settled = False
    books.ledger.release(worker.id, now)
    _forget_removed(books)
    if worker.model not in books.demand:
        return
    books.demand[worker.model].sleeps = False
    if was_asked:
        demand = books.demand[worker.model]
        _end_turn(demand, worker, now)
        if worker.num_served:
            demand.serve_out()
    else:
        failure = event.failure or ev.Failure("crashed", f"{worker.model} ended by itself")
        _failed(books, worker, failure, now, was_starting)


def _failed(
    books: Books, worker: Worker, failure: ev.Failure, now: float, was_starting: bool
) -> None:
    demand = books.demand[worker.model]
    if was_starting and failure.kind == "out_of_memory":
        figures = sizes(books.needs(worker.model, worker.variant))
        reason = f"{failure.reason.rstrip('.')} (set aside for it: {figures})"
        failure = replace(failure, reason=reason)
    books.note(worker.model, "fail", f"{failure.kind}: {failure.reason}", failure.kind)
    if was_starting and failure.kind == "out_of_memory" and not demand.short_of_memory:
        _grow_estimate(books, worker)
        demand.short_of_memory = True
        return  # planned again at once, with the larger figure
    born = worker.started_at if worker.ready_at is None else worker.ready_at
    demand.fail(failure, now, lived_s=now - born, was_ready=not was_starting)
    demand.short_of_memory = False
    demand.wanted_since = None
    if was_starting:
        refusals.refuse_failed(books, demand, now)


def _grow_estimate(books: Books, worker: Worker) -> None:
    """After a load that ran out of memory. Another layout may be the best then; where there is
    none, the figure grows no further than to all that can be had."""
    model, key = worker.model, (worker.model, worker.variant.key)
    known = {**worker.variant.needs, **books.memory.get(key, {})}
    grown = {name: int(size * OUT_OF_MEMORY_GROWTH) for name, size in known.items()}
    books.memory[key] = grown
    most = most_for(books, books.demand[model])
    if not any(fits(layout.needs, most) for layout in books.layouts(model)):
        capped = {name: max(known[name], min(grown[name], most(name))) for name in known}
        books.memory[key] = capped


# ---------------------------------------------------------------- what people ask for


def _load_requested(books: Books, event: ev.LoadRequested, now: float) -> None:
    demand = books.demand[event.model]
    worker = books.workers.get(event.model)
    if worker is not None and worker.is_to_sleep:
        spare(books, worker, "asked for again")
    if (worker is None or worker.state in AWAY_STATES) and not books.is_shutting_down:
        demand.wanted_since = now
        demand.retry_at = -math.inf  # whoever asks by hand wants it tried
        books.wanted[event.model] = None


def _unload_requested(books: Books, event: ev.UnloadRequested, now: float) -> None:
    refusals.refuse_unloaded(books, books.demand[event.model])
    worker = books.workers.get(event.model)
    if worker is not None:
        send_off(books, worker, "request", "unloaded on request", now)


def _sleep_requested(books: Books, event: ev.SleepRequested, now: float) -> None:
    worker = books.workers.get(event.model)
    if worker is not None and worker.state is WorkerState.READY:
        put_to_sleep(books, worker, "put to sleep on request", now)


def _pin_chosen(books: Books, event: ev.PinChosen) -> None:
    if event.is_pinned == books.is_pinned(event.model):
        return
    books.pins[event.model] = event.is_pinned
    _forget_pins(books)
    books.is_settled = False  # it may stay for longer, or not so long
    books.note(event.model, "pin" if event.is_pinned else "unpin", "on request")


def _forget_pins(books: Books) -> None:
    """Those of models that are configured no more, and those that only say what the configuration does."""
    models = books.registry.models
    books.pins = {
        name: is_pinned
        for name, is_pinned in books.pins.items()
        if name in models and models[name].pin != is_pinned
    }


def _stay_chosen(books: Books, event: ev.StayChosen) -> None:
    worker = books.workers.get(event.model)
    if worker is not None:
        worker.stays_s = event.stays_s
        books.is_settled = False


def _registry_replaced(books: Books, event: ev.RegistryReplaced, now: float) -> None:
    old, books.registry = books.registry, event.registry
    books.ledger.set_budgets(budgets(event.registry))
    books.may_be_short = True
    for name in event.registry.models:
        books.expect(name)
    removed = old.models.keys() - event.registry.models.keys()
    for name in removed:
        refusals.refuse_removed(books, books.demand[name])
    for name in sorted(removed | event.changed):
        if name in event.changed:
            _forget_measures(books, name)
        if (worker := books.workers.get(name)) is not None:
            send_off(books, worker, "configuration", "its configuration changed", now)
    _forget_removed(books)
    _forget_pins(books)


def _forget_measures(books: Books, name: str) -> None:
    """Of a model that is served in another way now; what failed before may work."""
    for known in (books.memory, books.asleep):
        for key in [key for key in known if key[0] == name]:
            del known[key]
    books.demand[name].wake_s = None
    books.demand[name].retry_at = -math.inf


def _forget_removed(books: Books) -> None:
    """Models that are configured no more, once their worker is gone."""
    for name in books.demand.keys() - books.registry.models.keys() - books.workers.keys():
        del books.demand[name]
        books.wanted.pop(name, None)


def _shutdown_requested(books: Books, now: float) -> None:
    books.is_shutting_down = True
    for demand in books.demand.values():
        refusals.refuse_shutting_down(books, demand)
    for worker in list(books.workers.values()):
        send_off(books, worker, "shutdown", "shutting down", now)
