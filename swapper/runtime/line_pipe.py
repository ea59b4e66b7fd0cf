"""Reads what a worker writes, line by line, without ever making it wait for anything but us."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

CHUNK_BYTES = 32_768  # read at once; between two chunks the event loop has its turn
LINE_BYTES = 8192  # what is longer is cut into lines of this length


class LinePipe:
    """Calls `on_line` for each line that comes out of `fd`, until its end. Owns `fd`.

    A carriage return ends a line as a newline does, so that progress bars show; empty lines are
    left out. Bytes that are not UTF-8 are replaced.
    """

    def __init__(
        self, fd: int, on_line: Callable[[str], None], line_bytes: int = LINE_BYTES
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._on_line = on_line
        self._line_bytes = line_bytes
        self._rest = b""
        self._is_open = True
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def drain(self) -> None:
        """Read what has been written so far, and close."""
        while self._is_open and self._read():
            pass
        self.close()

    def close(self) -> None:
        """Read no more. The line that was not finished yet is passed on."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        if self._rest:
            self._emit(self._rest)

    def _read(self) -> bool:
        """Pass on one chunk; False when there is none now."""
        try:
            chunk = os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self.close()
            return False
        self._split(chunk)
        return True

    def _split(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._rest) >= self._line_bytes:
            self._emit(self._rest[: self._line_bytes])
            self._rest = self._rest[self._line_bytes :]

    def _emit(self, line: bytes) -> None:
        for start in range(0, len(line), self._line_bytes):
            piece = line[start : start + self._line_bytes].decode(errors="replace")
            if piece.strip():
                self._on_line(piece.rstrip())
