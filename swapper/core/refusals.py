"""Telling those who wait that they wait in vain: why, and when to come again.

Every refusal of the scheduler is made here, one function for each reason.
"""

from __future__ import annotations

from swapper.core import events as ev
from swapper.core.books import Books
from swapper.core.demand import Demand
from swapper.core.queue import Waiting
from swapper.core.sizes import sizes
from swapper.core.worker import WorkerState
from swapper.errors import RefusalKind

SHUTTING_DOWN_RETRY_S = 5.0
TOO_LATE_RETRY_S = 5.0
TOO_LARGE_RETRY_S = 60.0  # somebody has to change something first
UNLOADED_RETRY_S = 1.0


def refuse_late(books: Books, now: float) -> None:
    """Whose deadline has passed."""
    for model in books.wanted:
        demand = books.demand[model]
        if not demand.queue or demand.queue.first_deadline > now:
            continue
        for waiting in demand.queue.late(now):
            waited_s = now - waiting.arrived_at
            reason = f"waited {waited_s:.0f} s for {model}: {_why(books, model)}"
            _refuse(books, demand, waiting, "timeout", reason, TOO_LATE_RETRY_S)


def refuse_full(books: Books, demand: Demand, waiting: Waiting) -> None:
    """Who came when the queue was full."""
    limit = demand.spec.queue_limit
    reason = f"{limit} requests wait for {demand.spec.name} already; try again later"
    _refuse(books, demand, waiting, "queue_full", reason, max(1.0, demand.load_or()))


def refuse_failed(books: Books, demand: Demand, now: float) -> None:
    """All who wait for a model that could not be loaded, or is not to be tried yet."""
    failure = demand.failure or ev.Failure("crashed", "its worker ended")
    reason = f"{demand.spec.name} could not be loaded: {failure.reason}"
    retry_after_s = max(1.0, demand.retry_at - now)
    _refuse_all(books, demand, "load_failed", reason, retry_after_s, failure.kind)


def refuse_too_large(books: Books, demand: Demand) -> None:
    """All who wait for a model that could not be loaded even into an empty machine."""
    needs = books.needs(demand.spec.name, demand.spec.variants[-1])
    most = {name: books.ledger.budget(name) for name in needs}
    reason = (
        f"{demand.spec.name} needs {sizes(needs)}, and at most {sizes(most)} can be had "
        "beside the pinned models; give it a smaller context or swapper more memory"
    )
    books.note(demand.spec.name, "refuse", reason)
    _refuse_all(books, demand, "too_large", reason, TOO_LARGE_RETRY_S)


def refuse_removed(books: Books, demand: Demand) -> None:
    """All who wait for a model that was taken out of the configuration."""
    reason = f"{demand.spec.name} is not configured any more; GET /v1/models lists the models"
    _refuse_all(books, demand, "unloaded", reason, UNLOADED_RETRY_S)


def refuse_unloaded(books: Books, demand: Demand) -> None:
    """All who wait for a model that somebody unloads by hand."""
    name = demand.spec.name
    reason = f"{name} was unloaded while the request waited; send it again to load it"
    _refuse_all(books, demand, "unloaded", reason, UNLOADED_RETRY_S)


def refuse_shutting_down(books: Books, demand: Demand) -> None:
    """All who wait for a model, at the end of everything."""
    reason = "swapper is shutting down"
    _refuse_all(books, demand, "shutting_down", reason, SHUTTING_DOWN_RETRY_S)


def _refuse_all(
    books: Books,
    demand: Demand,
    kind: RefusalKind,
    reason: str,
    retry_after_s: float,
    cause: str | None = None,
) -> None:
    demand.wanted_since = None
    for waiting in list(demand.queue):
        _refuse(books, demand, waiting, kind, reason, retry_after_s, cause)


def _refuse(
    books: Books,
    demand: Demand,
    waiting: Waiting,
    kind: RefusalKind,
    reason: str,
    retry_after_s: float,
    cause: str | None = None,
) -> None:
    del books.waiting[waiting.request_id]
    demand.queue.remove(waiting)
    books.commands.append(ev.Reject(waiting.request_id, kind, reason, retry_after_s, cause))


def _why(books: Books, model: str) -> str:
    """What a request that waited too long waited for."""
    worker = books.workers.get(model)
    if worker is None:
        return f"no room came free for it{_held_by_others(books, model)}"
    return {
        WorkerState.STARTING: "it is still loading",
        WorkerState.READY: "all its places are taken",
        WorkerState.WAKING: "it is still waking",
        WorkerState.SLEEPING: "no room came free to wake it in",
    }.get(worker.state, "its worker is on its way out")


def _held_by_others(books: Books, model: str) -> str:
    names = {name for v in books.demand[model].spec.variants for name in v.needs}
    held = {n: books.ledger.budget(n) - books.ledger.capacity(n) for n in sorted(names)}
    held = {name: size for name, size in held.items() if size > 0}
    return f"; other programs hold {sizes(held)} of what it may use" if held else ""
