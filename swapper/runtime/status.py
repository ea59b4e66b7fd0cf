"""One line about everything, for a person who asks the service manager."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from swapper.runtime.views import Snapshot, WorkerView

MOST_NAMES: Final = 4


def status_line(snapshot: Snapshot, num_models: int) -> str:
    """Such as `1 of 5 models loaded: coder; loading chat (40%); 3 waiting`."""
    by_state: dict[str, list[WorkerView]] = {}
    for worker in snapshot.workers:
        by_state.setdefault(worker.state, []).append(worker)
    loaded = by_state.pop("ready", [])
    names = f": {_names(worker.model for worker in loaded)}" if loaded else ""
    parts = [f"{len(loaded)} of {num_models} models loaded{names}"]
    if loading := by_state.pop("starting", []):
        parts.append(f"loading {_names(map(_with_progress, loading))}")
    for state, workers in by_state.items():
        parts.append(f"{state} {_names(worker.model for worker in workers)}")
    if (answering := sum(worker.in_flight for worker in snapshot.workers)) > 0:
        parts.append(f"{answering} being answered")
    if (waiting := sum(snapshot.waiting.values())) > 0:
        parts.append(f"{waiting} waiting")
    return "; ".join(parts)


def _with_progress(worker: WorkerView) -> str:
    return f"{worker.model} ({worker.progress:.0%})" if worker.progress else worker.model


def _names(all_of_them: Iterable[str]) -> str:
    names = list(all_of_them)
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
