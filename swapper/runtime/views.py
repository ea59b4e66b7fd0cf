"""The state of things as an operator sees it: values, taken at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from swapper.core import events as ev
from swapper.core.books import Books
from swapper.core.registry import GROUP, Bytes
from swapper.core.worker import Worker
from swapper.runtime.lease import Running


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker as an operator sees it. Times in seconds, memory in bytes by device: what was set
    aside for it at its start, and what it was measured to take, or takes asleep."""

    model: str
    engine: str
    worker_id: str
    state: str
    pid: int | None
    in_flight: int
    progress: float
    reserved: Bytes
    measured: Bytes
    idle_s: float | None
    expires_in_s: float | None
    ttl_s: float
    stays_s: float | None = None  # idle time before unload, as configured or chosen; None: no end
    can_sleep: bool = False


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device, in bytes: what we may use, what other programs hold of that, what is set aside; and
    what of the others' part was lent to them, taken or not."""

    name: str
    budget: int
    others: int
    charged: int
    lent: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All workers, how many requests wait for each model that somebody waits for, the devices, and the
    models that are pinned, by their configuration or by hand."""

    workers: tuple[WorkerView, ...]
    waiting: Mapping[str, int]
    devices: tuple[DeviceView, ...] = ()
    pinned: frozenset[str] = frozenset()


def snapshot(books: Books, running: Mapping[ev.WorkerId, Running], now: float) -> Snapshot:
    """What the books say, and what is known of its workers' processes."""
    waiting = {model: len(d.queue) for model, d in books.demand.items() if d.queue}
    views = (_view(books, model, running, now) for model in books.workers)
    pinned = frozenset(model for model in books.registry.models if books.is_pinned(model))
    return Snapshot(tuple(views), waiting, tuple(_devices(books)), pinned)


def _devices(books: Books) -> Iterator[DeviceView]:
    ledger = books.ledger
    for name, budget in books.registry.budgets.items():
        others = max(0, budget - ledger.capacity(name))
        lent = min(others, ledger.lent(name))
        yield DeviceView(name, budget, others, ledger.charged(name), lent)


def _view(
    books: Books, model: str, running: Mapping[ev.WorkerId, Running], now: float
) -> WorkerView:
    worker, spec = books.workers[model], books.demand[model].spec
    process = running.get(worker.id)
    expires_at, stays_s = books.expires_at(worker), books.stay_of(worker)
    return WorkerView(
        model=model,
        engine=spec.engine,
        worker_id=worker.id,
        state=worker.state.value,
        pid=process.handle.pid if process else None,
        in_flight=worker.num_in_flight,
        progress=process.progress if process else 0.0,
        reserved={n: b for n, b in worker.reserved.items() if not n.startswith(GROUP)},
        measured=_holds(worker),
        idle_s=None if worker.idle_since is None else now - worker.idle_since,
        expires_in_s=None if expires_at == float("inf") else expires_at - now,
        ttl_s=spec.ttl_s,
        stays_s=None if stays_s == float("inf") else stays_s,
        can_sleep=worker.can_sleep,
    )


def _holds(worker: Worker) -> Bytes:
    return worker.asleep if worker.is_asleep else worker.measured
