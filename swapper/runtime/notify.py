"""The service manager: says how swapper fares (sd_notify), takes the sockets it passes (sd_listen_fds).

Both protocols are systemd's; without it nothing is said, and there are no sockets.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

FIRST_PASSED_FD: Final = 3
TICK_S: Final = 1.0  # no status more often than this
MOST_LAG: Final = 1 / 6  # of the watchdog's time, that the event loop may be late


class ServiceManager:
    """Speaks to systemd where it listens, and to nobody otherwise.

    Takes its variables out of the environment, so that no worker can speak in swapper's name.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        self._watchdog_s = _watchdog_s()
        self._status = ""
        self.sockets = _passed_sockets()

    def tell(self, *lines: str) -> None:
        """Send assignments, e.g. "READY=1". What goes wrong is nobody's trouble."""
        self._status = next((line for line in lines if line.startswith("STATUS=")), self._status)
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode(), address)
        except OSError:
            pass

    async def keep_told(self, status: Callable[[], str]) -> None:
        """Until cancelled: say the status when it has become another, and that the event loop is well.

        The loop is not well when it comes back to us late, for then everybody waits that long. One
        that is late again and again is not said to be alive, and so replaced.
        """
        if not self._address:
            return
        loop = asyncio.get_running_loop()
        tick_s = min(TICK_S, self._watchdog_s / 4)
        while True:
            due = loop.time() + tick_s
            await asyncio.sleep(tick_s)
            is_well = loop.time() - due < self._watchdog_s * MOST_LAG
            lines = ["WATCHDOG=1"] if is_well and self._watchdog_s < float("inf") else []
            if (line := f"STATUS={status()}") != self._status:
                lines.append(line)
            if lines:
                self.tell(*lines)


def _watchdog_s() -> float:
    """After how much silence we are taken for dead; infinity where nobody watches."""
    pid, microseconds = os.environ.pop("WATCHDOG_PID", ""), os.environ.pop("WATCHDOG_USEC", "")
    is_ours = not pid or pid == str(os.getpid())
    return int(microseconds) / 1e6 if is_ours and microseconds.isdecimal() else float("inf")


def _passed_sockets() -> tuple[socket.socket, ...]:
    """Listening already, in the order of the socket unit."""
    pid, number = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not number.isdecimal():
        return ()
    passed = [socket.socket(fileno=FIRST_PASSED_FD + index) for index in range(int(number))]
    for one in passed:
        one.set_inheritable(False)
        one.setblocking(False)
    return tuple(passed)
