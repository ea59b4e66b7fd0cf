"""A lease: one request's stay with one worker, from its arrival in the queue to its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from swapper.core import events as ev
from swapper.core.registry import Registry
from swapper.errors import Unavailable
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.placement import LaunchSpec, WorkerHandle


@dataclass(slots=True)
class Running:
    """A worker's handle and what became known of it."""

    model: str
    launch: LaunchSpec
    handle: WorkerHandle
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    progress: float = 0.0


@dataclass(slots=True)
class Lease:
    """The right to send one request to one worker. Valid inside its `async with`."""

    worker_id: str
    model: str
    engine: str
    endpoint: Endpoint
    arrived_at: float  # on the dispatcher's clock
    queue_s: float  # time waited in all; of it
    swap_s: float  # others moved out
    load_s: float  # and the worker loaded
    _exited: asyncio.Event

    async def lost(self, timeout_s: float = 1.0) -> bool:
        """Whether the worker is gone; waits a moment for the news of it, for a connection may break
        just before its process is seen to end."""
        try:
            await asyncio.wait_for(self._exited.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


class Desk(Protocol):
    """What a ticket needs of the dispatcher."""

    clock: Callable[[], float]
    request_ids: itertools.count[int]
    tickets: dict[ev.RequestId, Ticket]

    @property
    def registry(self) -> Registry: ...
    def is_loaded(self, model: str) -> bool: ...
    async def check(self, model: str) -> None: ...
    def post(self, event: ev.Event) -> None: ...


class Ticket:
    """One request's stay: arrives on entry, ends on exit, whoever leaves first."""

    __slots__ = (
        "_arrived",
        "_desk",
        "_future",
        "_outcome",
        "_request_id",
        "arrived_at",
        "model",
    )

    def __init__(
        self, desk: Desk, model: str, arrived_at: float | None, priority: int, key: str
    ) -> None:
        self._desk = desk
        self._request_id = next(desk.request_ids)
        self._outcome: Lease | Unavailable | None = None
        self._future: asyncio.Future[None] | None = None
        self.model = model
        self.arrived_at = desk.clock() if arrived_at is None else arrived_at
        self._arrived = ev.RequestArrived(
            self._request_id, model, self.arrived_at, priority=priority, key=key
        )

    async def __aenter__(self) -> Lease:
        if not self._desk.is_loaded(self.model):
            await self._desk.check(self.model)
        self._desk.registry.resolve(self.model)  # it may be configured no more
        self._desk.tickets[self._request_id] = self
        self._desk.post(self._arrived)
        try:
            if self._outcome is None:
                self._future = asyncio.get_running_loop().create_future()
                await self._future
            if isinstance(self._outcome, Lease):
                return self._outcome
            assert self._outcome is not None, "a ticket was resolved without an outcome"
            raise self._outcome
        except BaseException:
            self._end()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        del self._desk.tickets[self._request_id]
        self._desk.post(ev.RequestEnded(self._request_id))

    def resolve(self, outcome: Lease | Unavailable) -> None:
        """The scheduler has decided. A client who has left meanwhile is no error."""
        self._outcome = outcome
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
