"""Counters of the front, and the page that Prometheus reads.

Labels are configured names only, so that clients cannot grow the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from swapper.core.worker import WorkerState
from swapper.runtime.views import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4"
STATES = tuple(state.value for state in WorkerState)


@dataclass(slots=True)
class Metrics:
    """What the front counts by itself."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # model, route, code
    loads: Counter[str] = field(default_factory=Counter)  # workers that were of use, by model
    last_worker: dict[str, str] = field(default_factory=dict)
    active: int = 0

    def count(self, model: str | None, route: str, code: int) -> None:
        """One request is over. `model` is a configured name; None where none was found."""
        self.requests[(model or "", route, code)] += 1

    def saw_worker(self, model: str, worker_id: str) -> None:
        """A worker served a request of this model."""
        if self.last_worker.get(model) != worker_id:
            self.last_worker[model] = worker_id
            self.loads[model] += 1


def page(metrics: Metrics, snapshot: Snapshot, models: Iterable[str]) -> str:
    """The whole page, in Prometheus' text format."""
    families = (_requests(metrics), _load(metrics, snapshot), _workers(metrics, snapshot, models))
    return "\n".join(line for family in families for line in family) + "\n"


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


def _family(name: str, kind: str, help_text: str, samples: Mapping[str, float]) -> list[str]:
    head = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
    return head + [f"{name}{labels} {value}" for labels, value in samples.items()]


def _labels(**labels: str) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
