"""TCP ports of this machine for workers that do not speak over Unix sockets."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Collection
from pathlib import Path

import psutil

LOOPBACK = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 32_767
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(taken: Collection[int] = ()) -> int:
    """A port of 127.0.0.1 on which nobody listens, and which is not in `taken`.

    It lies below the range from which the kernel serves outgoing connections: a worker may take
    half a minute until it listens, and meanwhile the port would go to somebody's connection.
    """
    ports = range(LOWEST, min(HIGHEST, _first_ephemeral() - 1) + 1)
    for port in random.sample(ports, len(ports)) if ports else ():
        if port not in taken and _can_bind(port):
            return port
    return _any_port()


async def accepts(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Whether somebody accepts connections there."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def is_loopback(host: str | None) -> bool:
    """Whether the host name means this machine, to itself."""
    return host is not None and (host in ("localhost", "::1") or host.startswith("127."))


def listener(port: int, older_than: int | None = None) -> str | None:
    """A program that listens on the port; if process `older_than` is given, only one older than it,
    hence not of its making.

    Blocks for some 10 ms. None also where the system does not tell (macOS, other users' programs).
    """
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    listeners = (
        connection.pid
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr[1] == port
        and connection.pid
    )
    return next(filter(None, (_name(pid, older_than) for pid in listeners)), None)


def _name(pid: int, older_than: int | None) -> str | None:
    try:
        process = psutil.Process(pid)
        if older_than is None or process.create_time() < psutil.Process(older_than).create_time():
            return f"{process.name()} (process {pid})"
    except psutil.Error:
        pass
    return None


def _first_ephemeral() -> int:
    try:
        return int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return HIGHEST + 1


def _can_bind(port: int) -> bool:
    """Without SO_REUSEADDR, so that it will do for servers that do not set it either."""
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
