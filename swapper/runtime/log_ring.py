"""The last output of every worker, kept in memory, for `swapper logs`, the web page and error reports."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

RING_BYTES = 262_144  # kept of each model, and of all together
RING_LINES = 5000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a worker of `model`."""

    model: str
    text: str


class _Ring:
    """The newest lines, numbered from 0 since the beginning, and who waits for the next one."""

    def __init__(self, max_bytes: int, max_lines: int) -> None:
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._lines: deque[LogLine] = deque()
        self._bytes = 0
        self.end = 0  # the number of the line that comes next
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def start(self) -> int:
        """The number of the oldest line that is left."""
        return self.end - len(self._lines)

    def append(self, line: LogLine) -> None:
        self._lines.append(line)
        self._bytes += len(line.text)
        self.end += 1
        while len(self._lines) > self._max_lines or self._bytes > self._max_bytes:
            self._bytes -= len(self._lines.popleft().text)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def since(self, number: int) -> list[LogLine]:
        """The lines from that number on, as far as they are left."""
        skipped = max(0, number - self.start)
        return list(itertools.islice(self._lines, skipped, None))

    async def more(self) -> None:
        """Wait for a line to be appended."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)


class LogRing:
    """What workers have written lately: by model, and of all models in the order it came.

    Use it from the event loop's thread. Reading never holds up a writer: a reader that is too slow
    misses lines, and is told so.
    """

    def __init__(self, max_bytes: int = RING_BYTES, max_lines: int = RING_LINES) -> None:
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._all = _Ring(max_bytes, max_lines)
        self._by_model: dict[str, _Ring] = {}

    def append(self, model: str, text: str) -> None:
        """Keep one line of a worker of `model`."""
        line = LogLine(model, text)
        self._all.append(line)
        self._ring(model).append(line)

    def last(self, model: str | None = None, limit: int | None = None) -> list[LogLine]:
        """The newest lines, oldest first; of one model, or of all."""
        lines = self._ring(model).since(0)
        return lines if limit is None else lines[len(lines) - min(limit, len(lines)) :]

    async def tail(
        self, model: str | None = None, *, history: bool = True
    ) -> AsyncIterator[LogLine]:
        """Lines for ever, as they come; what is kept comes first, unless `history` is False."""
        ring = self._ring(model)
        number = ring.start if history else ring.end
        while True:
            if (missed := ring.start - number) > 0:
                yield LogLine(model or "", f"... {missed} lines missed ...")
            lines = ring.since(number)
            number = ring.end
            for line in lines:
                yield line
            if number == ring.end:
                await ring.more()

    def _ring(self, model: str | None) -> _Ring:
        if model is None:
            return self._all
        if model not in self._by_model:
            self._by_model[model] = _Ring(self._max_bytes, self._max_lines)
        return self._by_model[model]
