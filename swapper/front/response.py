"""A worker's answer as it comes: the head is here, the body arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader

from swapper.errors import WorkerLost


class Response:
    """An answer as it comes: the head is here, the body arrives.

    Either `wait` and `take`, or `relay`; not both at once.
    """

    __slots__ = ("_abort", "_payload", "_sink", "_taken", "_waiter", "error", "message")

    def __init__(
        self, message: RawResponseMessage, payload: StreamReader, abort: Callable[[], None]
    ) -> None:
        self.message = message
        self.error: WorkerLost | None = None
        self._payload = payload
        self._abort: Callable[[], None] | None = abort
        self._sink: Callable[[bytes], bool] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._taken = 0

    @property
    def status(self) -> int:
        return self.message.code

    @property
    def reason(self) -> str:
        return self.message.reason

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """As sent by the worker, in order."""
        return self.message.raw_headers

    def header(self, name: str) -> str:
        """The first value of a header; empty if there is none."""
        value: str = self.message.headers.get(name, "")
        return value

    @property
    def is_complete(self) -> bool:
        """All of the body is here, read or not."""
        return self._payload.is_eof()

    def take(self) -> bytes:
        """What has arrived and was not given out yet; never waits."""
        data = self._payload.read_nowait()
        self._taken += len(data)
        return data

    async def wait(self) -> None:
        """Return when there is something to take or the body is complete; raise if it broke."""
        while not self.is_complete and self._payload.total_bytes == self._taken:
            if self.error is not None:
                raise self.error
            await self._next_arrival()

    async def relay(
        self, sink: Callable[[bytes], bool], drain: Callable[[], Awaitable[None]]
    ) -> None:
        """Give every piece of the body to `sink`, in the same loop step in which it arrives.

        When `sink` returns True it is full: nothing more is given until `drain()` returns. Raises
        the break, after everything that came before it was given.
        """
        try:
            while True:
                self._sink = sink
                self.arrived()  # what is here already
                while not self._is_news():
                    await self._next_arrival()
                if not self._is_full():
                    break
                await drain()
        finally:
            self._sink = None
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Break the exchange off, if it is not over. The worker sees its client go."""
        self._sink = None
        abort, self._abort = self._abort, None
        if abort is not None:
            abort()

    # ------------------------------------------------------------ for Connection

    def arrived(self) -> None:
        """Bytes, the end, or a break came."""
        sink = self._sink
        if sink is not None:
            data = self._payload.read_nowait()
            self._taken += len(data)
            if data and sink(data):
                self._sink = None
            elif self.error is None and not self._payload.is_eof():
                return  # the usual case in a stream: passed on, and nobody to wake
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def ended(self, error: WorkerLost | None = None) -> None:
        """Nothing more will come; the connection is no longer this answer's."""
        self._abort = None
        self.error = error
        self.arrived()

    # ------------------------------------------------------------ inside

    def _is_full(self) -> bool:
        """The sink has had enough, or there is none."""
        return self._sink is None

    def _is_news(self) -> bool:
        """Worth waking the reader: while relaying only a full sink, the end or a break are."""
        return self._is_full() or self.is_complete or self.error is not None

    async def _next_arrival(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
