"""How workers go: they drain, they stop, or they are spared after all.

Who is to go is decided elsewhere: by `making_room`, by an event, or by the clock.
"""

from __future__ import annotations

from swapper.core import events as ev
from swapper.core.books import Books
from swapper.core.worker import Worker, WorkerState


def send_off(
    books: Books, worker: Worker, reason: str, now: float, makes_room_for: str | None = None
) -> None:
    """Stop the worker, when what it has in flight is done."""
    books.is_settled = False
    if worker.state is not WorkerState.STOPPING:
        worker.makes_room_for = makes_room_for
    if worker.state is WorkerState.DRAINING:
        pass  # already, perhaps for somebody else
    elif worker.num_in_flight:
        worker.move(WorkerState.DRAINING)
        books.note(worker.model, "drain", f"{reason}; {worker.num_in_flight} in flight")
    elif worker.state in (WorkerState.STARTING, WorkerState.READY):
        books.note(worker.model, "stop", reason)
        _stop(books, worker, now)


def stop_done(books: Books, now: float) -> None:
    """Those that drained, and those idle past their ttl."""
    for worker in books.workers.values():
        if worker.state is WorkerState.DRAINING and worker.num_in_flight == 0:
            _stop(books, worker, now)
        elif worker.is_idle and books.expires_at(worker) <= now:
            books.note(worker.model, "expire", "idle past its ttl")
            _stop(books, worker, now)


def spare_needless(books: Books) -> None:
    """A worker that drains for a model that nobody wants any more, or that found room elsewhere,
    serves again."""
    for worker in books.workers.values():
        beneficiary = worker.makes_room_for
        if beneficiary is None:
            continue
        if beneficiary not in books.wanted or beneficiary in books.workers:
            worker.makes_room_for = None
            if worker.state is WorkerState.DRAINING:
                books.note(worker.model, "spare", f"{beneficiary} does not need the room")
                worker.move(WorkerState.READY)
                books.is_settled = False


def _stop(books: Books, worker: Worker, now: float) -> None:
    worker.move(WorkerState.STOPPING)
    worker.stopping_since = now
    grace_s = books.demand[worker.model].spec.stop_grace_s
    books.commands.append(ev.StopWorker(worker.id, grace_s))
