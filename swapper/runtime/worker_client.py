"""The few HTTP words that the runtime itself says to a worker. Requests of clients are the front's."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from swapper.core.registry import Bytes
from swapper.runtime.endpoint import Endpoint

MAX_BYTES = 65536  # of a reply


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's answer: its status, 0 for what is no HTTP or no answer at all; and its body, as far as
    `MAX_BYTES` of it."""

    status: int
    body: bytes = b""


async def status_of(
    endpoint: Endpoint, method: str, path: str, body: object = None, *, within_s: float = 5.0
) -> int:
    """Send a request and return its status, without waiting for what follows."""
    request = _request(endpoint, method, path, body)
    return (await _reply(endpoint, request, within_s, wants_body=False)).status


async def say(endpoint: Endpoint, method: str, path: str, *, within_s: float) -> Reply:
    """Send a request to a worker that keeps the contract, and return all that came back."""
    request = _request(endpoint, method, path, None)
    return await _reply(endpoint, request, within_s, wants_body=True)


async def _reply(endpoint: Endpoint, request: bytes, within_s: float, *, wants_body: bool) -> Reply:
    try:
        async with asyncio.timeout(within_s):
            return await _exchange(endpoint, request, wants_body)
    except (OSError, TimeoutError, ValueError, EOFError, IndexError):
        return Reply(0)


def memory_of(reply: Reply) -> Bytes:
    """The bytes by device that a worker tells as `memory`; nothing where it tells none."""
    try:
        memory = json.loads(reply.body)["memory"]
        return {str(name): int(size) for name, size in memory.items() if int(size) >= 0}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def reason_of(reply: Reply) -> str:
    """The sentence with which a worker refused; empty where it told none."""
    try:
        return str(json.loads(reply.body)["error"]["message"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""


async def _exchange(endpoint: Endpoint, request: bytes, wants_body: bool) -> Reply:
    reader, writer = await _connect(endpoint)
    try:
        writer.write(request)
        line = await reader.readline()
        if not line.startswith(b"HTTP/"):
            return Reply(0)
        content = await _read(reader) if wants_body else b""
        _, _, body = content.partition(b"\r\n\r\n")
        return Reply(int(line.split()[1]), body)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """What comes until the worker closes the connection, as it was asked to."""
    content = b""
    while len(content) < MAX_BYTES and (more := await reader.read(MAX_BYTES)):
        content += more
    return content


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
