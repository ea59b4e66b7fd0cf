"""Where swapper answers: TCP addresses and Unix sockets."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to listen on: a TCP port, or a Unix socket."""

    host: str | None = None
    port: int = 0
    socket_path: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host is None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.host is None:
            return f"unix:{self.socket_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen_of(listening: socket.socket) -> Listen:
    """Where a socket listens that somebody else has opened."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return Listen(socket_path=str(name))
    return Listen(host=name[0], port=name[1])


def parse_listen(value: object) -> Listen:
    """An address from `host:port`, `unix:/path` or an absolute path; raises ValueError."""
    text = value if isinstance(value, str) else ""
    path = text.removeprefix("unix:")
    if path.startswith("/"):
        return Listen(socket_path=path)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{value!r} is not an address; write 127.0.0.1:8080 or unix:/path")
    return Listen(host=host, port=int(port))
