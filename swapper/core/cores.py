"""How many CPU threads each worker computes with.

llama.cpp's threads wait for each other at every node of the graph, so two workers that both use all cores
do not take turns, they collapse to a tenth. Workers that are busy together therefore share the cores; one
that is busy alone has them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from swapper.core import events as ev
from swapper.core.books import Books
from swapper.core.worker import SERVING_STATES, Worker, WorkerState

LINGER_S = 2.0  # a worker idle for less still counts as busy: a pause is not worth a change


def shares(busy: Sequence[str], cores: int) -> dict[str, int]:
    """Threads for each of the workers that are busy together: at least one each, the cores between them,
    what is left over to the first ones."""
    if not busy:
        return {}
    each, rest = divmod(cores, len(busy))
    return {worker: max(1, each + (index < rest)) for index, worker in enumerate(busy)}


def first_threads(books: Books, worker: Worker, now: float) -> dict[str, object]:
    """The settings with which a worker starts; it is in the books already."""
    if not books.registry.cores or not books.demand[worker.model].spec.shares_cores:
        return {}
    busy = [w.id for w in _busy(books, now)]
    worker.threads = shares(busy, books.registry.cores)[worker.id]
    return {"threads": worker.threads}


def share_cores(books: Books, now: float) -> float:
    """Tell running workers their share, where it changed; returns when one stops to count as busy."""
    if not books.registry.cores or not books.workers:
        return math.inf
    busy = _busy(books, now)
    given = shares([worker.id for worker in busy], books.registry.cores)
    for worker in busy:
        if worker.state in SERVING_STATES and worker.threads != given[worker.id]:
            worker.threads = given[worker.id]
            books.commands.append(ev.SetThreads(worker.id, worker.threads))
    if len(busy) < 2:
        return math.inf
    idle = [worker.idle_since for worker in busy if worker.idle_since is not None]
    return min(idle, default=math.inf) + LINGER_S


def _busy(books: Books, now: float) -> list[Worker]:
    """Workers that compute on the CPU now, or did a moment ago."""
    return [
        worker
        for worker in books.workers.values()
        if books.demand[worker.model].spec.shares_cores
        and worker.state not in (WorkerState.STOPPING, WorkerState.SLEEPING)
        and (worker.idle_since is None or worker.idle_since + LINGER_S > now)
    ]
