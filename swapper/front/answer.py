"""The answer to a client, written straight to its connection.

aiohttp's own responses decode, sort and encode every header and cost two coroutine steps a chunk; an
answer that is passed on needs none of that. The framing is decided once, when the head is written:

1. no body at all (HEAD, 204, 304);
2. a length the worker gave;
3. chunked, for an HTTP/1.1 client;
4. until the connection closes, for an HTTP/1.0 client.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from swapper.front.headers import Header
from swapper.front.origins import cors_headers

CLIENT_LEFT: Final = 499  # in logs and metrics only; nobody is there to be told
LAST_CHUNK: Final = b"0\r\n\r\n"
LAST: Final = web.RequestKey("last", bool)  # of requests whose connection closes after the answer
LONGEST_LINE: Final = 1024 * 1024  # a longer one is not held back
NO_BODY_STATUSES: Final = frozenset({204, 304})


class Answer(web.StreamResponse):
    """An answer that has begun. One of `finish`, `fail` and `break_off` ends it.

    Writing to a client that has gone does nothing: its handler is being cancelled.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        status: int,
        reason: str,
        headers: Iterable[Header],
        first: bytes = b"",
        *,
        length: int | None = None,
        is_whole: bool = False,
        is_events: bool = False,
        keep_alive: bool = True,
    ) -> None:
        """Write the head, and the first bytes of the body with it.

        `length` is that of the body where it is known; `is_whole`: `first` is all of it;
        `is_events`: it is an event stream, in plain text.
        """
        super().__init__(status=status)
        if is_whole and length is None:
            length = len(first)
        self.num_bytes = 0
        self.is_finished = False
        self._request = request
        self._protocol = request.protocol
        self._has_body = request.method != "HEAD" and status not in NO_BODY_STATUSES
        self._is_framed = length is not None or not self._has_body
        self._is_chunked = not self._is_framed and request.version >= (1, 1)
        self._takes_events = is_events and not self._is_framed
        self._keep_alive = (
            keep_alive
            and request.keep_alive
            and LAST not in request
            and (self._is_framed or self._is_chunked)
        )
        head = self._head(status, reason, headers, length)
        self._transmit(head + self._frame(first) if first else head)
        if is_whole:
            self.finish()

    def send(self, data: bytes) -> bool:
        """Send a piece of the body; True when the client cannot take more for now: see `drain`."""
        self.num_bytes += len(data)
        protocol = self._protocol
        transport = protocol.transport
        if transport is not None:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
        return protocol.writing_paused

    async def drain(self) -> None:
        await self._request.writer.drain()

    def finish(self) -> None:
        """The body is complete. Finishing twice is nothing."""
        if self._is_chunked and not self.is_finished:
            self._transmit(LAST_CHUNK)
        self.is_finished = True

    def fail(self, event: bytes) -> None:
        """The body will not be completed: say so with a last event, or break off."""
        if self._takes_events and not self.is_finished:
            self.send(b"\n" + event)  # ends an event that was half sent
            self.finish()
        elif not self.is_finished:
            self.break_off()

    def break_off(self) -> None:
        """End in a way that no client takes for the end of the body."""
        self._keep_alive = False
        self.is_finished = True
        if self._protocol.transport is not None:
            self._protocol.transport.abort()

    # ------------------------------------------------------------ for aiohttp: all is sent already

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None

    # ------------------------------------------------------------ inside

    def _head(
        self, status: int, reason: str, headers: Iterable[Header], length: int | None
    ) -> bytes:
        request = self._request
        lines = [f"HTTP/1.1 {status} {reason}\r\n".encode("utf-8", "surrogateescape")]
        lines += [b"%b: %b\r\n" % header for header in (*headers, *cors_headers(request))]
        if length is not None:
            if self._has_body or (length and status != 204):
                lines.append(b"content-length: %d\r\n" % length)
        elif self._is_chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self._keep_alive:
            lines.append(b"connection: close\r\n")
        elif request.version < (1, 1):
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _frame(self, data: bytes) -> bytes:
        self.num_bytes += len(data)
        return b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data

    def _transmit(self, data: bytes) -> None:
        transport = self._protocol.transport
        if transport is not None:
            transport.write(data)


def nothing_for(request: web.BaseRequest) -> Answer:
    """For a client that has gone: closes what is left of its connection."""
    if request.transport is not None:
        request.transport.abort()
    answer = Answer(request, CLIENT_LEFT, "", ())
    answer.break_off()
    return answer


class WholeLines:
    """Holds the last, unfinished line of an event stream back, so that an event of our own can follow.

    A client that is sent half a line and then an error sees broken JSON instead of the error.
    """

    def __init__(self) -> None:
        self._rest = b""

    def whole(self, data: bytes) -> bytes:
        """What may be sent now that `data` has come."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if data.endswith(b"\n") or len(data) > LONGEST_LINE:
            return data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """What is left when the stream came to its end."""
        return self._rest
