"""How workers go: they drain, they sleep, they stop, or they are spared after all.

Who is to go is decided elsewhere: by `making_room`, by an event, or by the clock. One that makes room
for another sleeps, where it can and where what it holds then is neither missing nor more than there is
room for; whoever goes for its own sake stops, unless somebody asked for its sleep.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from swapper.core import events as ev
from swapper.core.books import Books
from swapper.core.registry import Bytes
from swapper.core.sizes import sizes
from swapper.core.worker import Errand, Worker, WorkerState

Cause: TypeAlias = Literal["room", "loan", "other_programs", "request", "configuration", "shutdown"]


def send_off(
    books: Books,
    worker: Worker,
    cause: Cause,
    reason: str,
    now: float,
    errand: Errand | None = None,
    *,
    is_to_sleep: bool = False,
) -> None:
    """Have the worker go, when what it has in flight is done."""
    books.is_settled = False
    if worker.state is WorkerState.STOPPING:
        return
    worker.errand, worker.is_to_sleep, worker.cause = errand, is_to_sleep, cause
    if worker.num_in_flight and worker.state is WorkerState.READY:
        worker.move(WorkerState.DRAINING)
        reason = f"{reason}; {worker.num_in_flight} in flight"
        books.note(worker.model, "drain", reason, cause)
    elif not worker.num_in_flight:
        _go(books, worker, reason, now)


def put_to_sleep(books: Books, worker: Worker, reason: str, now: float) -> None:
    """Have the worker sleep, when what it has in flight is done; not where it cannot, or where the host
    has no room for that."""
    worker.errand = None
    if _bed(books, worker) is None:
        books.note(worker.model, "stay", f"{reason}, but it cannot, or the host has no room for it")
    else:
        send_off(books, worker, "request", reason, now, is_to_sleep=True)


def go_if_done(books: Books, now: float) -> None:
    """Those that drained, and those at rest past their ttl."""
    for worker in books.workers.values():
        if worker.state is WorkerState.DRAINING and worker.num_in_flight == 0:
            _go(books, worker, "its answers are done", now)
        elif worker.is_at_rest and books.expires_at(worker) <= now:
            books.note(worker.model, "expire", "idle past its ttl", "idle")
            _stop(books, worker, now)


def stop(books: Books, worker: Worker, reason: str, now: float) -> None:
    """Whatever it does."""
    books.note(worker.model, "stop", reason, worker.cause)
    _stop(books, worker, now)


def spare_needless(books: Books) -> None:
    """A worker that drains for a model that nobody wants any more, or that found room elsewhere,
    serves again."""
    for worker in books.workers.values():
        if worker.errand is None:
            continue
        model = worker.errand.model
        if model not in books.wanted or not books.lacks_place(model):
            worker.errand = None
            spare(books, worker, f"{model} does not need the room")
        elif books.is_pinned(worker.model):
            worker.errand = None
            spare(books, worker, "it is pinned")


def spare(books: Books, worker: Worker, reason: str) -> None:
    """Let a worker that drains serve again; one that does not is as it was."""
    if worker.state is WorkerState.DRAINING:
        books.note(worker.model, "spare", reason)
        worker.move(WorkerState.READY)
        books.is_settled = False


def _go(books: Books, worker: Worker, reason: str, now: float) -> None:
    sleeps = worker.errand is not None or worker.is_to_sleep
    bed = _bed(books, worker) if sleeps else None
    if bed is None:
        stop(books, worker, reason, now)
        return
    worker.move(WorkerState.SLEEPING)
    worker.stopping_since = now
    worker.asleep = bed
    books.ledger.grow(worker.id, bed)
    books.note(worker.model, "sleep", f"{reason}; it keeps {sizes(bed)}", worker.cause)
    timeout_s = books.demand[worker.model].spec.load_timeout_s
    books.commands.append(ev.SleepWorker(worker.id, timeout_s))


def _bed(books: Books, worker: Worker) -> Bytes | None:
    """What the worker will hold asleep; None if it had better stop."""
    may = worker.state in (WorkerState.READY, WorkerState.DRAINING) and worker.can_sleep
    if not may:
        return None
    errand = worker.errand or Errand(worker.model, {}, {})
    bed, held = books.holds_asleep(worker), books.ledger.charge_of(worker.id)
    freed = {name: held.get(name, 0) - bed.get(name, 0) for name in errand.missing}
    if any(bed.get(name, 0) and freed[name] < lack for name, lack in errand.missing.items()):
        return None
    more = {name: size - held.get(name, 0) for name, size in bed.items()}
    room = {name: books.ledger.room(name) - errand.needs.get(name, 0) for name in bed}
    return None if any(size > max(0, room[name]) for name, size in more.items()) else bed


def _stop(books: Books, worker: Worker, now: float) -> None:
    worker.move(WorkerState.STOPPING)
    worker.stopping_since = now
    worker.is_asleep, worker.asleep = False, {}
    grace_s = books.demand[worker.model].spec.stop_grace_s
    books.commands.append(ev.StopWorker(worker.id, grace_s))
