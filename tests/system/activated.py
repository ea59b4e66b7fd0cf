"""Stands in for a service manager: opens the listening socket, and runs swapper with it as fd 3."""

from __future__ import annotations

import os
import socket
import sys

PASSED_FD = 3


def main(listening_fd: int, command: list[str]) -> None:
    os.dup2(listening_fd, PASSED_FD, inheritable=True)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    os.execv(command[0], command)


def listening() -> socket.socket:
    """As a socket unit would open it."""
    opened = socket.create_server(("127.0.0.1", 0), backlog=1024)
    opened.set_inheritable(True)
    return opened


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
