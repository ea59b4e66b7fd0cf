"""A worker that has no process: a server that others run, or one that could not be started."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from swapper.core.events import Failure
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.placement import WorkerFacts
from swapper.runtime.supervisor import Callbacks


class Processless:
    """A `WorkerHandle`: ready at once, or, with a failure, gone at once."""

    pid: int | None = None

    def __init__(
        self, endpoint: Endpoint, callbacks: Callbacks, failure: Failure | None = None
    ) -> None:
        self.endpoint = endpoint
        self._callbacks = callbacks
        self._stopped = asyncio.Event()
        self.gone = asyncio.get_running_loop().create_task(self._live(failure))

    def our_names(self, memory: Mapping[str, int]) -> Mapping[str, int]:
        """See `WorkerHandle`."""
        return memory

    def stop(self, grace_s: float) -> None:
        """See `WorkerHandle`."""
        self._stopped.set()

    async def _live(self, failure: Failure | None) -> None:
        if failure is None and not self._stopped.is_set():
            self._callbacks.on_ready(WorkerFacts())
            await self._stopped.wait()
        self._callbacks.on_exit(None if self._stopped.is_set() else failure)
