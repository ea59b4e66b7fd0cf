"""Finding out when a server that reports nothing is ready: asking it, often at first."""

from __future__ import annotations

import asyncio

from swapper.runtime import ports
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.worker_client import status_of

SHORTEST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.25
PAUSE_PART = 0.025  # of the time waited so far: what asking too rarely may add to a load


async def until_ready(endpoint: Endpoint, path: str | None) -> None:
    """Return when `path` answers 200; with None, when the port accepts. Never gives up."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while not await is_ready(endpoint, path):  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(pause_s(clock() - began))


def pause_s(waited_s: float) -> float:
    """How long to wait before asking again."""
    return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, PAUSE_PART * waited_s))


async def is_ready(endpoint: Endpoint, path: str | None) -> bool:
    """Whether the server is ready now."""
    if path is None:
        return await ports.accepts(endpoint.host or "", endpoint.port)
    return await status_of(endpoint, "GET", path) == 200
