"""Workers that go because somebody outside needs the room: whoever was lent memory, or other programs.

For a loan, which a person has asked for, all go that are needed, the busy ones when their answers are
done. Other programs, that ask nobody, get what idle models hold.
"""

from __future__ import annotations

from typing import Final

from swapper.core.books import Books
from swapper.core.departures import Cause, send_off
from swapper.core.eviction import Candidate, choose_victims
from swapper.core.making_room import cost_of_moving
from swapper.core.room import Room
from swapper.core.sizes import sizes
from swapper.core.worker import Worker, WorkerState

SLACK: Final = 0.02  # of a budget, that is not worth a model


def yield_room(books: Books, now: float) -> None:
    """Send those off whose room is not ours any more, as things stand."""
    ledger = books.ledger
    books.may_be_short = any(ledger.room(name) < 0 for name in books.registry.budgets)
    if not books.may_be_short:
        return
    room = Room(ledger, books.workers.values())
    short = room.missing(dict.fromkeys(books.registry.budgets, 0))
    lent = {name: lack for name, lack in short.items() if ledger.lent(name)}
    taken = {
        name: min(lack, ledger.overdrawn(name))
        for name, lack in short.items()
        if name not in lent and ledger.overdrawn(name) > SLACK * ledger.budget(name)
    }
    if lent:
        _send_off(books, lent, "loan", "memory was lent", now, idle_only=False)
    if taken:
        why = "other programs need memory"
        _send_off(books, taken, "other_programs", why, now, idle_only=True)


def end_loans(books: Books, now: float) -> None:
    """Take back what was lent for as long."""
    for loan in [loan for loan, until in books.loans.items() if until <= now]:
        del books.loans[loan]
        books.ledger.take_back(loan)


def _send_off(
    books: Books, short: dict[str, int], cause: Cause, why: str, now: float, *, idle_only: bool
) -> None:
    workers = [w for w in books.workers.values() if _may_go(books, w, idle_only)]
    candidates = [
        Candidate(
            worker.id,
            books.ledger.charge_of(worker.id),
            cost_of_moving(worker, books.demand[worker.model], now),
            worker.is_at_rest,
        )
        for worker in workers
    ]
    # What cannot be had whole is had as far as it goes: the rest may come back by itself.
    there = {
        name: min(lack, sum(c.holds.get(name, 0) for c in candidates))
        for name, lack in short.items()
    }
    needed = {name: size for name, size in there.items() if size > 0}
    for victim in choose_victims(needed, candidates) or ():
        worker = books.worker(victim.worker_id)
        assert worker is not None
        send_off(books, worker, cause, f"{why}: {sizes(short)}", now)


def _may_go(books: Books, worker: Worker, idle_only: bool) -> bool:
    if worker.model not in books.demand or books.is_pinned(worker.model):
        return False
    return worker.is_at_rest or (worker.state is WorkerState.READY and not idle_only)
