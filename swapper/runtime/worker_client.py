"""The few HTTP words that the runtime itself says to a worker. Requests of clients are the front's."""

from __future__ import annotations

import asyncio
import json

from swapper.runtime.endpoint import Endpoint


async def status_of(
    endpoint: Endpoint, method: str, path: str, body: object = None, *, within_s: float = 5.0
) -> int:
    """Send a request and return its status; 0 for what is no HTTP, or no answer at all."""
    try:
        async with asyncio.timeout(within_s):
            return await _exchange(endpoint, _request(endpoint, method, path, body))
    except (OSError, TimeoutError, ValueError, EOFError, IndexError):
        return 0


async def _exchange(endpoint: Endpoint, request: bytes) -> int:
    reader, writer = await _connect(endpoint)
    try:
        writer.write(request)
        line = await reader.readline()
        return int(line.split()[1]) if line.startswith(b"HTTP/") else 0
    finally:
        writer.close()


async def _connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.socket_path is not None:
        return await asyncio.open_unix_connection(endpoint.socket_path)
    return await asyncio.open_connection(endpoint.host, endpoint.port, ssl=endpoint.tls or None)


def _request(endpoint: Endpoint, method: str, path: str, body: object) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    host = f"[{endpoint.host}]" if ":" in (endpoint.host or "") else endpoint.host or "worker"
    lines = [
        f"{method} {endpoint.prefix}/{path.lstrip('/')} HTTP/1.1",
        f"host: {host}:{endpoint.port}" if endpoint.port else f"host: {host}",
        "connection: close",
        *([f"content-length: {len(content)}", "content-type: application/json"] if content else []),
        *(f"{name}: {value}" for name, value in endpoint.headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode() + content
