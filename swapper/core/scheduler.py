"""Who gets which worker, whose worker starts, who moves out: every decision, in one tree.

`handle` enters what happened in the books, runs the one decision tree (`_plan`) over all of them, and
returns the commands to carry out. No call blocks. The tree, for each model that somebody waits for,
in the order of the line where it is about places:

  1. A READY worker with room takes the request at once.
  2. A worker on its way up or out is waited for; a model in back-off refuses.
  3. There is room: start a worker, or wake the one that sleeps. Several may load at once.
  4. There is no room: the cheapest movable workers make it. Idle ones stop or sleep, busy ones drain
     and take nothing new. Until then the room that is there, or coming, stays claimed for this model, so that
     nobody who came later can take it.

Before it, requests past their deadline are refused and whoever drained for a model that nobody wants
any more serves again; after it, drained workers go and those at rest past their ttl stop.

    books         all the state        bookkeeping   what an event changes in it
    making_room   who could go         departures    how a worker goes
    refusals      who waits in vain    cores         threads of those that are busy together
"""

from __future__ import annotations

import math

from swapper.core import events as ev
from swapper.core.bookkeeping import enter
from swapper.core.books import Books, Learned
from swapper.core.cores import first_threads, share_cores
from swapper.core.demand import Demand
from swapper.core.departures import go_if_done, send_off, spare_needless, stop
from swapper.core.fitting import fits
from swapper.core.making_room import layout_for, most_for, victims_for
from swapper.core.queue import Waiting
from swapper.core.refusals import refuse_failed, refuse_late, refuse_too_large
from swapper.core.registry import Bytes, Registry, Variant
from swapper.core.room import Room
from swapper.core.sizes import sizes
from swapper.core.worker import Errand, Worker, WorkerState
from swapper.core.yielding import end_loans, yield_room

PRIORITY_S = 60.0  # of waiting that one more of priority counts for: ahead, but never for ever


class Scheduler:
    """Decides, after each event, what is to be done. Not thread-safe: one dispatcher holds it."""

    def __init__(self, registry: Registry, learned: Learned | None = None) -> None:
        self.books = Books(registry, learned or {})
        self._blocked_until = math.inf  # when a worker becomes movable that somebody waits for
        self._due_at = math.inf  # when `_settle` has something to do by itself

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        """Note one event and return what is to be done now, in order. Raises on a broken book."""
        enter(self.books, event, now)
        self._plan(now)
        return self.books.take_commands()

    def next_deadline(self) -> float:
        """When `TimePassed` is due at the latest; infinity when nothing is to happen by itself."""
        books = self.books
        due_at = min(self._blocked_until, self._due_at, books.ledger.returns_until)
        if books.loans:
            due_at = min(due_at, *books.loans.values())
        if books.wanted:  # as a rule nobody waits; this is asked for at every event
            due_at = min(due_at, self._first_queue_deadline())
        return due_at

    def _first_queue_deadline(self) -> float:
        queues = (self.books.demand[model].queue for model in self.books.wanted)
        return min((queue.first_deadline for queue in queues if queue), default=math.inf)

    def check_integrity(self) -> None:
        """Raise BrokenBooks if two parts of the state disagree. For tests and idle moments."""
        self.books.check_integrity()

    # ------------------------------------------------------------ the decision tree

    def _plan(self, now: float) -> None:
        books = self.books
        self._blocked_until = math.inf
        books.ledger.stop_waiting(now)
        if books.loans:
            end_loans(books, now)
        if books.may_be_short:
            yield_room(books, now)
        if books.wanted:
            refuse_late(books, now)
            self._forget_unwanted()
        spare_needless(books)
        if books.wanted:
            for model in books.wanted:
                self._grant_waiting(model, now)
            self._forget_unwanted()
        if books.wanted:  # still: the usual request is served by now
            room = Room(books.ledger, books.workers.values())
            without = [model for model in books.wanted if books.lacks_place(model)]
            for model in sorted(without, key=self._place_in_line):
                if (worker := books.workers.get(model)) is None:
                    self._find_place(model, room, now)
                else:
                    self._wake(worker, room, now)
            self._forget_unwanted()
        if not books.is_settled or now >= self._due_at:
            self._settle(now)

    def _settle(self, now: float) -> None:
        """What follows from the workers' states alone. Not at every event: only when one has changed its
        state, fallen idle or got busy, or when something is due."""
        go_if_done(self.books, now)
        cores_settle_at = share_cores(self.books, now)
        resting = [self.books.expires_at(w) for w in self.books.workers.values() if w.is_at_rest]
        self._due_at = min(resting, default=math.inf)
        self._due_at = min(self._due_at, cores_settle_at)
        self.books.is_settled = True

    def _place_in_line(self, model: str) -> tuple[float, bool, str]:
        """The smaller, the sooner: since when it waits, less what its priority counts for; but behind
        the one that it has just made room for, whatever its priority, or that room was made in vain."""
        demand, first = self.books.demand[model], self.books.demand[model].gave_way_to
        own = self._rank(demand), False, model
        if first is None or first not in self.books.wanted:
            return own
        waits_since = self.books.demand[first].waits_since
        if waits_since is None or waits_since > demand.turn_ended_at:
            return own
        return max(own, (self._rank(self.books.demand[first]), True, model))

    def _rank(self, demand: Demand) -> float:
        if demand.waits_since is None:
            return math.inf
        return demand.waits_since - PRIORITY_S * demand.priority

    def _forget_unwanted(self) -> None:
        demand = self.books.demand
        for model in [m for m in self.books.wanted if not demand[m].is_wanted]:
            del self.books.wanted[model]
            demand[model].room_since = None
            if self.books.lacks_place(model):
                self.books.is_settled = False  # if it sleeps, its ttl counts again

    def _grant_waiting(self, model: str, now: float) -> None:  # 1
        """Before any place is given away: who has just come up serves a round, whoever else waits."""
        books, demand = self.books, self.books.demand[model]
        worker = books.workers.get(model)
        if worker is None or worker.state is not WorkerState.READY:
            return  # 2
        demand.wanted_since = None
        while demand.queue and worker.num_in_flight < demand.spec.parallel:
            waiting = demand.queue.pop(worker.in_flight.__getitem__)
            del books.waiting[waiting.request_id]
            books.in_flight[waiting.request_id] = worker, waiting.key, now
            books.is_settled = books.is_settled and worker.idle_since is None
            worker.take(waiting.key, waiting.priority)
            books.commands.append(_grant(waiting, worker))

    def _find_place(self, model: str, room: Room, now: float) -> None:
        """The turn of a model without a worker; the numbers are those of the module's head."""
        demand = self.books.demand[model]
        if now < demand.retry_at:  # 2
            refuse_failed(self.books, demand, now)
            return
        layout = layout_for(self.books, demand, room, now)
        if layout is None:
            refuse_too_large(self.books, demand)
        elif room.fits(layout.needs):  # 3
            self._start(demand, layout.variant, layout.needs, now)
        else:  # 4
            self._make_room(demand, layout.needs, room, now)
            room.claim(layout.needs)

    def _start(self, demand: Demand, variant: Variant, needs: Bytes, now: float) -> None:
        books, model = self.books, demand.spec.name
        worker_id = books.next_worker_id(model)
        books.ledger.reserve(worker_id, needs)
        since = now if demand.room_since is None else demand.room_since
        worker = Worker(worker_id, model, variant, now, since, reserved=needs)
        books.workers[model] = worker
        books.is_settled = False
        settings = {**variant.settings, **first_threads(books, worker, now)}
        books.note(model, "start", f"reserved {sizes(needs)}")
        timeout_s = demand.spec.load_timeout_s
        books.commands.append(ev.StartWorker(worker_id, model, needs, settings, timeout_s))

    def _wake(self, worker: Worker, room: Room, now: float) -> None:
        """The turn of a model whose worker sleeps: where it slept, or nowhere."""
        books, demand = self.books, self.books.demand[worker.model]
        needs, held = books.needs(worker.model, worker.variant), books.ledger.charge_of(worker.id)
        if not fits(needs, most_for(books, demand)):
            stop(books, worker, f"it cannot have {sizes(needs)} any more", now)
            return
        more = {name: max(0, need - held.get(name, 0)) for name, need in needs.items()}
        if not room.fits(more):  # 4
            self._make_room(demand, more, room, now)
            room.claim(more)
            return
        worker.move(WorkerState.WAKING)  # 3
        worker.is_asleep, worker.asleep = False, {}
        worker.room_since = now if demand.room_since is None else demand.room_since
        worker.started_at = now
        books.ledger.grow(worker.id, needs)
        books.is_settled = False
        books.note(worker.model, "wake", f"takes {sizes(more)}")
        books.commands.append(ev.WakeWorker(worker.id, demand.spec.load_timeout_s))

    def _make_room(self, demand: Demand, needs: Bytes, room: Room, now: float) -> None:
        books, model = self.books, demand.spec.name
        if demand.room_since is None:
            demand.room_since = now
        missing = room.missing(needs)
        if not missing:
            return  # enough is on its way out
        victims, blocked_until = victims_for(books, demand, missing, now)
        if victims is None:
            self._blocked_until = min(self._blocked_until, blocked_until)
        for victim in victims or ():
            worker = books.worker(victim.worker_id)
            assert worker is not None
            errand = Errand(model, needs, missing)
            send_off(books, worker, "room", f"{model} needs {sizes(missing)}", now, errand)
            room.expect(books.ledger.charge_of(worker.id), worker.asleep)


def _grant(waiting: Waiting, worker: Worker) -> ev.Grant:
    ready_at = worker.ready_at or worker.started_at
    load_s = max(0.0, ready_at - max(worker.started_at, waiting.arrived_at))
    swap_s = max(0.0, worker.started_at - max(worker.room_since, waiting.arrived_at))
    return ev.Grant(waiting.request_id, worker.id, swap_s, load_s)
