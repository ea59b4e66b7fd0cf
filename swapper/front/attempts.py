"""A worker for one request; another one where the first dies before it has answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from swapper.errors import WorkerLost
from swapper.front.call import Call
from swapper.front.metrics import Metrics
from swapper.front.refusal import DiedTwice
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.lease import Lease

log = structlog.get_logger("swapper.front")

Answered = TypeVar("Answered")


async def on_a_worker(
    dispatcher: Dispatcher,
    metrics: Metrics,
    call: Call,
    ask: Callable[[Lease], Awaitable[Answered]],
) -> Answered:
    """What `ask` gives, called with a lease of `call.model`.

    Where the worker dies before anything of its answer was sent (`call.has_begun`), once more, at the
    old place in the queue. Raises DiedTwice, Unavailable and whatever `ask` raises.
    """
    assert call.model is not None
    arrived_at: float | None = None
    for _ in range(2):
        priority = call.key.priority if call.key is not None else 0
        async with dispatcher.lease(
            call.model, arrived_at=arrived_at, priority=priority, key=call.key_name
        ) as lease:
            call.lease = lease
            metrics.saw_worker(call.model, lease.worker_id)
            try:
                return await ask(lease)
            except WorkerLost:
                if call.has_begun or not await lease.lost():
                    raise
        arrived_at = lease.arrived_at
        log.warning("the worker died early", model=call.model, request_id=call.request_id)
    raise DiedTwice("the model's worker died twice on this request, before it answered")
