"""What a page about this server shows of devices and models, as one value."""

from __future__ import annotations

import time
from collections.abc import Mapping

from swapper import __version__
from swapper.core.registry import ModelSpec, Registry
from swapper.front.metrics import Metrics
from swapper.runtime.views import Snapshot, WorkerView


def state(
    snapshot: Snapshot, registry: Registry, metrics: Metrics, tokens: Mapping[str, int]
) -> dict[str, object]:
    """`tokens`: how many each model's worker has generated, as far as it says.

    Bytes and seconds; `at` and `now` in seconds since 1970. Of a device `budget` is what swapper may
    use, `others` what other programs hold of that, `lent` the part of it that was lent to them,
    `charged` what is set aside for workers.
    """
    workers = {worker.model: worker for worker in snapshot.workers}
    models = [
        {
            **_model(spec, workers.get(name), snapshot.waiting.get(name, 0)),
            "pin": name in snapshot.pinned,
            "tokens": tokens.get(name),
        }
        for name, spec in registry.models.items()
    ]
    return {
        "now": time.time(),
        "version": __version__,
        "active": metrics.active,
        "devices": [
            {
                "name": d.name,
                "budget": d.budget,
                "others": d.others,
                "lent": d.lent,
                "charged": d.charged,
            }
            for d in snapshot.devices
        ],
        "models": models,
    }


def _model(spec: ModelSpec, worker: WorkerView | None, waiting: int) -> dict[str, object]:
    return {
        "name": spec.name,
        "aliases": list(spec.aliases),
        "engine": spec.engine,
        "priority": spec.priority,
        "ttl_s": spec.ttl_s,
        "waiting": waiting,
        "state": "stopped" if worker is None else worker.state,
        "worker": worker and worker.worker_id,
        "pid": worker and worker.pid,
        "in_flight": worker.in_flight if worker else 0,
        "progress": worker.progress if worker else 0.0,
        "reserved": dict(worker.reserved) if worker else {},
        "measured": dict(worker.measured) if worker else {},
        "idle_s": worker and worker.idle_s,
        "expires_in_s": worker and worker.expires_in_s,
        "stays_s": worker and worker.stays_s,
        "can_sleep": worker.can_sleep if worker else False,
    }
