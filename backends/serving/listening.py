"""The socket a worker is reached by."""

from __future__ import annotations

import errno
import os
import socket

from backends.serving.engine import EngineError


def bind(listen: str) -> socket.socket:
    """A socket bound to `unix:PATH` or `tcp:HOST:PORT`, not listening yet."""
    kind, _, place = listen.partition(":")
    try:
        return _bind_unix(place) if kind == "unix" else _bind_tcp(place)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise EngineError("port_taken", f"{listen} cannot be used: {error.strerror}.") from None
        raise EngineError("bad_options", f"{listen} cannot be listened on: {error}.") from None


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)  # before bind: there must be no moment when others can connect
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _is_answered(path):
                raise
            os.unlink(path)  # left behind by a process that was killed
            sock.bind(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(umask)
    return sock


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            pass
    return True


def _bind_tcp(place: str) -> socket.socket:
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise EngineError("bad_options", f"tcp:{place} is no address; it is tcp:HOST:PORT.")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
