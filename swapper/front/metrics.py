"""Counters of the front, and the page that Prometheus reads.

Labels are configured names only, so that clients cannot grow the page.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, islice

from swapper.core.worker import WorkerState
from swapper.front.call import Call
from swapper.front.upstream import Upstream
from swapper.front.worker_metrics import generated, pages, relabelled
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.lease import Lease
from swapper.runtime.views import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4"
STATES = tuple(state.value for state in WorkerState)
FRESH_S = 0.9
BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600)
SPANS = {
    "queue": "Waited for a worker, loading and swapping included.",
    "load": "Of that, its model loaded.",
    "swap": "Of that, others were moved out.",
    "first_byte": "From the request to the first byte of its answer.",
    "duration": "From the request to the end of its answer.",
}


RECENT = 200


@dataclass(frozen=True, slots=True)
class Told:
    """One request that is over; `at` in seconds since 1970."""

    at: float
    model: str | None
    route: str
    status: int
    queue_s: float | None
    load_s: float | None
    first_byte_s: float | None
    total_s: float
    error: str | None


class Histogram:
    """How often something took how long; in seconds."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """As Prometheus wants them: buckets that add up, their sum, their count."""
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        for bound, count in zip(bounds, accumulate(self._counts), strict=True):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count}'
        yield f"{name}_sum{{{labels}}} {self._sum:.6f}"
        yield f"{name}_count{{{labels}}} {sum(self._counts)}"


@dataclass(slots=True)
class Metrics:
    """What the front counts by itself."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # model, route, code
    loads: Counter[str] = field(default_factory=Counter)  # workers that were of use, by model
    spans: dict[str, dict[str, Histogram]] = field(  # by model
        default_factory=lambda: {name: {} for name in SPANS}
    )
    recent: deque[Told] = field(default_factory=lambda: deque(maxlen=RECENT))  # the newest last
    last_worker: dict[str, str] = field(default_factory=dict)
    active: int = 0
    num_ended: int = 0

    def told(self, since: int = 0) -> Iterable[tuple[int, Told]]:
        """The last requests behind number `since`, each with its own; the newest last."""
        first = self.num_ended - len(self.recent) + 1
        known = max(0, since - first + 1)
        return enumerate(islice(self.recent, known, None), first + known)

    def ended(self, call: Call, now: float) -> None:
        """A request is over; `now` on the clock of `call.started`. Its model is a configured name, or
        None where none was found."""
        self.active -= 1
        self.num_ended += 1
        call.number = self.num_ended
        self.requests[(call.model or "", call.route, call.status)] += 1
        lease, first_byte = call.lease, call.first_byte
        self.recent.append(
            Told(
                time.time(),
                call.model,
                call.route,
                call.status,
                None if lease is None else lease.queue_s,
                None if lease is None else lease.load_s,
                None if first_byte is None else first_byte - call.started,
                now - call.started,
                call.error,
            )
        )
        if lease is not None:
            self._time(call, lease, now)

    def _time(self, call: Call, lease: Lease, now: float) -> None:
        self._observe("queue", lease.model, lease.queue_s)
        if lease.load_s:
            self._observe("load", lease.model, lease.load_s)
        if lease.swap_s:
            self._observe("swap", lease.model, lease.swap_s)
        if call.first_byte is not None:
            self._observe("first_byte", lease.model, call.first_byte - call.started)
        self._observe("duration", lease.model, now - call.started)

    def _observe(self, span: str, model: str, seconds: float) -> None:
        histograms = self.spans[span]
        if (histogram := histograms.get(model)) is None:
            histogram = histograms[model] = Histogram()
        histogram.observe(seconds)

    def saw_worker(self, model: str, worker_id: str) -> None:
        """A worker served a request of this model."""
        if self.last_worker.get(model) != worker_id:
            self.last_worker[model] = worker_id
            self.loads[model] += 1


def page(
    metrics: Metrics,
    snapshot: Snapshot,
    models: Iterable[str],
    decided: Mapping[tuple[str, str, str], int],
) -> str:
    """Our part of the page, in Prometheus' text format. `decided`: how often, by model, action and cause."""
    families = (
        _requests(metrics),
        _load(metrics, snapshot),
        _workers(metrics, snapshot, models),
        _decided(decided),
        _devices(snapshot),
        _spans(metrics),
    )
    return "\n".join(line for family in families for line in family) + "\n"


class Page:
    """Our metrics with the workers' own, which are asked for at most once a second, whoever wants them.

    No model is started for it, and no worker keeps it waiting for more than a second.
    """

    def __init__(self, metrics: Metrics, dispatcher: Dispatcher, upstream: Upstream) -> None:
        self.metrics = metrics
        self._dispatcher = dispatcher
        self._upstream = upstream
        self._asked_at = float("-inf")
        self._theirs: dict[str, str] = {}
        self._text = ""  # of this second; empty until it is wanted
        self._lock = asyncio.Lock()

    async def text(self) -> str:
        """The whole page."""
        theirs = await self._pages()
        if not self._text:
            models = self._dispatcher.registry.models
            decided = self._dispatcher.decided
            ours = page(self.metrics, self._dispatcher.snapshot(), models, decided)
            self._text = "".join((ours, *(f"{line}\n" for line in relabelled(theirs))))
        return self._text

    async def generated(self) -> dict[str, int]:
        """How many tokens the model's workers have generated, by model, where they say so."""
        return generated(await self._pages())

    async def _pages(self) -> dict[str, str]:
        async with self._lock:
            now = self._dispatcher.clock()
            if now - self._asked_at > FRESH_S:
                self._theirs = await pages(self._upstream, self._dispatcher.own_endpoints())
                self._asked_at, self._text = now, ""
            return self._theirs


def _requests(metrics: Metrics) -> list[str]:
    samples = {
        _labels(model=model, route=route, code=str(code)): count
        for (model, route, code), count in metrics.requests.items()
    }
    help_text = "Requests answered, by model, route and status; 499: the client left."
    return _family("swapper_requests_total", "counter", help_text, samples)


def _load(metrics: Metrics, snapshot: Snapshot) -> list[str]:
    in_flight = {_labels(model=worker.model): worker.in_flight for worker in snapshot.workers}
    waiting = {_labels(model=model): count for model, count in snapshot.waiting.items()}
    return [
        *_family(
            "swapper_requests_active",
            "gauge",
            "Requests held, waiting or being answered.",
            {"": metrics.active},
        ),
        *_family("swapper_in_flight", "gauge", "Requests a worker is answering.", in_flight),
        *_family("swapper_waiting", "gauge", "Requests waiting for a worker.", waiting),
    ]


def _workers(metrics: Metrics, snapshot: Snapshot, models: Iterable[str]) -> list[str]:
    states = {worker.model: worker.state for worker in snapshot.workers}
    state = {
        _labels(model=model, state=state): int(states.get(model, "stopped") == state)
        for model in models
        for state in STATES
    }
    memory = {
        _labels(model=worker.model, device=device): count
        for worker in snapshot.workers
        for device, count in worker.measured.items()
    }
    loads = {_labels(model=model): count for model, count in metrics.loads.items()}
    return [
        *_family("swapper_model_state", "gauge", "1 for the state that the model is in.", state),
        *_family("swapper_model_loads_total", "counter", "Loads that led to an answer.", loads),
        *_family("swapper_worker_memory_bytes", "gauge", "Memory measured, by device.", memory),
    ]


def _decided(decided: Mapping[tuple[str, str, str], int]) -> list[str]:
    samples = {
        _labels(model=model, action=action, cause=cause): count
        for (model, action, cause), count in decided.items()
    }
    help_text = "Decisions about models; cause: why one goes, or how it failed."
    return _family("swapper_decisions_total", "counter", help_text, samples)


def _devices(snapshot: Snapshot) -> list[str]:
    samples = {
        _labels(device=device.name, kind=kind): count
        for device in snapshot.devices
        for kind, count in (
            ("budget", device.budget),
            ("others", device.others),
            ("charged", device.charged),
        )
    }
    help_text = (
        "What models may take, what other programs hold of that, what is set aside for models."
    )
    return _family("swapper_device_memory_bytes", "gauge", help_text, samples)


def _spans(metrics: Metrics) -> list[str]:
    lines = []
    for span, histograms in metrics.spans.items():
        name = f"swapper_request_{span}_seconds"
        lines += [f"# HELP {name} {SPANS[span]}", f"# TYPE {name} histogram"]
        for model, histogram in histograms.items():
            lines += histogram.lines(name, _labels(model=model)[1:-1])
    return lines


def _family(name: str, kind: str, help_text: str, samples: Mapping[str, float]) -> list[str]:
    head = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
    return head + [f"{name}{labels} {value}" for labels, value in samples.items()]


def _labels(**labels: str) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
