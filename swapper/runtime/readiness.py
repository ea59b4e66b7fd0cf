"""Finding out when a server that reports nothing is ready: asking it, often at first."""

from __future__ import annotations

import asyncio

from swapper.runtime import ports
from swapper.runtime.endpoint import Endpoint

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.25
PATIENCE_S = 5.0  # for one answer


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
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await _status(endpoint, path) == 200
    except (OSError, TimeoutError, ValueError, EOFError):
        return False


async def _status(endpoint: Endpoint, path: str) -> int:
    """The HTTP status with which the server answers GET."""
    reader, writer = await asyncio.open_connection(
        endpoint.host, endpoint.port, ssl=endpoint.tls or None
    )
    try:
        writer.write(_request(endpoint, path))
        line = await reader.readline()
        return int(line.split()[1]) if line.startswith(b"HTTP/") else 0
    except IndexError:
        return 0
    finally:
        writer.close()


def _request(endpoint: Endpoint, path: str) -> bytes:
    host = f"[{endpoint.host}]" if ":" in (endpoint.host or "") else endpoint.host
    lines = [
        f"GET {endpoint.prefix}/{path.lstrip('/')} HTTP/1.1",
        f"host: {host}:{endpoint.port}",
        "connection: close",
        *(f"{name}: {value}" for name, value in endpoint.headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode()
