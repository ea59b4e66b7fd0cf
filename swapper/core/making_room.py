"""Where a model could go, and who would have to leave for it now. Reads the books, writes nothing."""

from __future__ import annotations

import math

from swapper.core.books import Books
from swapper.core.demand import Demand
from swapper.core.eviction import Candidate, choose_victims
from swapper.core.fitting import Amount, Layout, Price, choose
from swapper.core.registry import Bytes
from swapper.core.room import Room
from swapper.core.tenure import movable_at
from swapper.core.worker import Worker, WorkerState

NEVER_EVICTED_FOR_CHAT = frozenset({"embedding", "completion"})


def layout_for(books: Books, demand: Demand, room: Room, now: float) -> Layout | None:
    """How to lay the model out, as things stand; None if it could never be loaded."""

    def price(needs: Bytes) -> Price:
        victims, blocked_until = victims_for(books, demand, room.missing(needs), now)
        if victims is None:
            return math.inf, blocked_until
        return sum(not v.is_idle for v in victims), sum(v.cost_s for v in victims)

    return choose(books.layouts(demand.spec.name), most_for(books, demand), room.now, price)


def victims_for(
    books: Books, waiting: Demand, missing: Bytes, now: float
) -> tuple[tuple[Candidate, ...] | None, float]:
    """Whom to move out now; or None, and when to ask again."""
    movable, blocked_until = _movable(books, waiting, missing, now)
    return choose_victims(missing, movable), blocked_until


def _movable(
    books: Books, waiting: Demand, missing: Bytes, now: float
) -> tuple[list[Candidate], float]:
    """Who may be moved out now, and when the next one may be."""
    candidates, blocked_until = [], math.inf
    places = [w for w in books.workers.values() if _is_place(books, w, waiting, missing)]
    num_places = sum(not worker.is_asleep for worker in places)
    for worker in places:
        if worker.state is not WorkerState.READY and not worker.is_asleep:
            continue
        resident = books.demand[worker.model]
        at = -math.inf if worker.is_asleep else movable_at(worker, resident, waiting, num_places)
        if at <= now:
            cost_s = cost_of_moving(worker, resident, now)
            holds = books.ledger.charge_of(worker.id)
            candidates.append(Candidate(worker.id, holds, cost_s, worker.is_at_rest))
        else:
            blocked_until = min(blocked_until, at)
    return candidates, blocked_until


def cost_of_moving(worker: Worker, resident: Demand, now: float) -> float:
    """Seconds to be lost by moving the worker out, as often as its model is wanted."""
    return _cost_s(worker, resident) * (resident.uses(now) + 1e-3)


def _cost_s(worker: Worker, resident: Demand) -> float:
    """What is lost when it goes and is wanted again; one that sleeps would come back by a wake."""
    if worker.is_asleep and resident.load_s is not None:
        return max(0.0, resident.load_s - resident.load_or())
    return resident.load_or()


def _is_place(books: Books, worker: Worker, waiting: Demand, missing: Bytes) -> bool:
    """Whether the worker holds what is missing, and may, once it is up, be moved out for it."""
    resident = books.demand[worker.model]
    if resident is waiting or _stays(books, resident, waiting):
        return False
    holds = books.ledger.charge_of(worker.id)
    return any(holds.get(name, 0) for name in missing)


def most_for(books: Books, demand: Demand) -> Amount:
    """What the model could have if everything movable were moved."""
    staying = [
        books.ledger.charge_of(w.id)
        for w in books.workers.values()
        if _stays(books, books.demand[w.model], demand) and not w.is_leaving
    ]
    return lambda name: books.ledger.budget(name) - sum(c.get(name, 0) for c in staying)


def _stays(books: Books, resident: Demand, waiting: Demand) -> bool:
    """Whether the resident model is never moved out for the waiting one."""
    role, other = resident.spec.role, waiting.spec.role
    if books.is_pinned(resident.spec.name):
        return True
    return role in NEVER_EVICTED_FOR_CHAT and other == "chat"
