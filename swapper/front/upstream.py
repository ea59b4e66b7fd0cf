"""The upstream half: requests to workers over kept-alive connections.

All the front needs of it is `open`, so that another client can take its place.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Final, TypeAlias

import structlog

from swapper.front.connection import (
    BrokenBeforeAnswer,
    Connection,
    NeverConnected,
)
from swapper.front.response import Response
from swapper.runtime.endpoint import Endpoint

log = structlog.get_logger("swapper.front")

Address: TypeAlias = tuple[str | None, str | None, int, bool]

IDLE_S: Final = 30.0  # a connection unused for longer is not used again
MAX_IDLE: Final = 256  # kept for one address


class Upstream:
    """Sends requests to endpoints. Connections are pooled by address.

    One event loop, no locks: the pool changes only between awaits.
    """

    def __init__(self, *, connect_timeout_s: float = 10.0) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Address, list[Connection]] = {}  # newest last
        self._tls: ssl.SSLContext | None = None

    async def open(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
    ) -> Response:
        """Send a request; return with the head of the answer.

        `headers` are end-to-end ones; host, length and the endpoint's own are added here. Raises
        NeverConnected or BrokenBeforeAnswer. A kept connection that the worker had closed meanwhile
        is replaced by a fresh one, once.
        """
        request = serialise(endpoint, method, target, headers, len(body))
        has_body = method != "HEAD"
        address = (endpoint.socket_path, endpoint.host, endpoint.port, endpoint.tls)
        connection = self._take_idle(address)
        if connection is not None:
            try:
                return await connection.exchange(request, body, has_body=has_body)
            except BrokenBeforeAnswer as error:
                if error.heard:
                    raise
        connection = await self._connect(address)
        return await connection.exchange(request, body, has_body=has_body)

    def close(self) -> None:
        """Close what is idle; what is in use closes with its answer."""
        for connections in list(self._idle.values()):
            for connection in list(connections):
                connection.abort()
        self._idle.clear()

    # ------------------------------------------------------------ for Connection

    def release(self, connection: Connection) -> None:
        connections = self._idle.setdefault(connection.address, [])
        if len(connections) < MAX_IDLE:
            connection.idle_since = asyncio.get_running_loop().time()
            connections.append(connection)
        else:
            connection.abort()

    def forget(self, connection: Connection) -> None:
        connections = self._idle.get(connection.address)
        if connections is None:
            return
        if connection in connections:
            connections.remove(connection)
        if not connections:
            del self._idle[connection.address]

    # ------------------------------------------------------------ inside

    def _take_idle(self, address: Address) -> Connection | None:
        connections = self._idle.get(address)
        while connections:
            connection = connections.pop()
            if connection.is_open and self._is_fresh(connection):
                return connection
            connection.abort()
        return None

    def _is_fresh(self, connection: Connection) -> bool:
        return asyncio.get_running_loop().time() - connection.idle_since < IDLE_S

    async def _connect(self, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(loop, self, address)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._dial(loop, connection, address)
        except TimeoutError:
            raise NeverConnected(
                f"the worker took no connection within {self._connect_timeout_s:g} s"
            ) from None
        except OSError as error:
            log.warning("no connection to a worker", address=address, reason=str(error))
            raise NeverConnected("the worker takes no connections") from None
        return connection

    async def _dial(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, address: Address
    ) -> None:
        path, host, port, tls = address
        if path is not None:
            await loop.create_unix_connection(lambda: connection, path)
            return
        assert host is not None
        transport, _ = await loop.create_connection(
            lambda: connection, host, port, ssl=self._context() if tls else None
        )
        sock = transport.get_extra_info("socket")
        if sock is not None:  # a far box that vanishes is noticed in the end
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def serialise(
    endpoint: Endpoint,
    method: str,
    target: str,
    headers: Iterable[tuple[bytes, bytes]],
    length: int,
) -> bytes:
    """The head of a request, as it goes over the wire."""
    start = f"{method} {endpoint.prefix}{target} HTTP/1.1\r\nhost: {host_header(endpoint)}\r\n"
    lines = [b"%b: %b\r\n" % header for header in headers]
    if length or method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d\r\n" % length)
    lines.append(b"\r\n")
    return start.encode("utf-8", "surrogateescape") + b"".join(lines)


def host_header(endpoint: Endpoint) -> str:
    """The host header's value: without a port where it is the scheme's own."""
    if endpoint.host is None:
        return "localhost"
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return host if endpoint.port == (443 if endpoint.tls else 80) else f"{host}:{endpoint.port}"
