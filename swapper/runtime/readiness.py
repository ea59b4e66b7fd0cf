"""Finding out when a server that reports nothing is ready: asking it, often at first."""

from __future__ import annotations

import asyncio

from swapper.runtime import ports
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.worker_client import status_of

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.25


async def until_ready(endpoint: Endpoint, path: str | None) -> None:
    """Return when `path` answers 200; with None, when the port accepts. Never gives up."""
    pause_s = FIRST_PAUSE_S
    while not await is_ready(endpoint, path):
        await asyncio.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, pause_s * 1.3)


async def is_ready(endpoint: Endpoint, path: str | None) -> bool:
    """Whether the server is ready now."""
    if path is None:
        return await ports.accepts(endpoint.host or "", endpoint.port)
    return await status_of(endpoint, "GET", path) == 200
