"""Tells the service manager how swapper fares: sd_notify(3), which is one datagram."""

from __future__ import annotations

import os
import socket


class ServiceManager:
    """Speaks to systemd where it listens, and to nobody otherwise.

    Takes the variable out of the environment, so that no worker can speak in swapper's name.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")

    def tell(self, *lines: str) -> None:
        """Send assignments, e.g. "READY=1". What goes wrong is nobody's trouble."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto("\n".join(lines).encode(), address)
        except OSError:
            pass
