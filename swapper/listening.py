"""Listening before there is a server: whoever connects while it is built waits for it, and is not refused."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Sequence

from swapper.config import Config, Listen, listen_of
from swapper.errors import ConfigError

EXIT_CANNOT_LISTEN = 1  # another one may be about to end: starting again may help


def on_passed(sockets: Sequence[socket.socket], config: Config) -> Config:
    """The configuration, listening on the sockets that the service manager has passed, if any. Raises
    ConfigError where they would be open to all."""
    if not sockets:
        return config
    try:
        return config.listening_on(tuple(map(listen_of, sockets)))
    except ConfigError as error:
        raise ConfigError(f"swapper was given sockets by the service manager: {error}") from None


def opened(listen: Listen) -> Listen | socket.socket:
    """Listens from now on if it is an IP address; names and Unix sockets are for the server to open.
    Raises OSError."""
    try:
        address = ipaddress.ip_address(listen.host or "")
    except ValueError:
        return listen
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return socket.create_server((str(address), listen.port), family=family)


def say_cannot_listen(wanted: Sequence[Listen], error: OSError) -> None:
    """To whoever has started it."""
    print(
        f"swapper cannot listen on {', '.join(map(str, wanted))}: {error.strerror or error}; "
        "is another one running? `--listen HOST:PORT` chooses another address",
        file=sys.stderr,
    )
