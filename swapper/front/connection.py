"""One HTTP/1.1 connection to a worker, and the answer that comes over it.

The rules:

1. One request at a time. While none is open, any byte from the peer closes the connection.
2. An answer is complete only when its own framing says so. A chunked body without its last chunk, or
   fewer bytes than `content-length` promised, is `BrokenAnswer`, never an end.
3. The bytes that arrived before a break are given out first, then the break is raised.
4. A connection goes back to its pool the moment its answer is complete, whether or not the answer has
   been read; until then closing the answer closes the connection, which is how a worker is told to stop.
5. Bytes wait in the answer's buffer up to a limit; beyond it reading from the socket is paused.

Parsing is done by aiohttp's llhttp parser, one parser object an answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser, RawResponseMessage
from aiohttp.streams import StreamReader

from swapper.errors import WorkerLost
from swapper.front.response import Response

BUFFER_BYTES: Final = 64 * 1024  # kept unread; reading pauses at twice this
HEAD_LINE_BYTES: Final = 64 * 1024  # longest header line taken from a worker


class NeverConnected(WorkerLost):
    """No connection could be made: the worker has seen nothing of the request."""


class BrokenBeforeAnswer(WorkerLost):
    """The connection broke before the head of an answer was complete.

    `heard` tells whether any byte of one came.
    """

    def __init__(self, message: str, *, heard: bool = True) -> None:
        super().__init__(message)
        self.heard = heard


class BrokenAnswer(WorkerLost):
    """The answer began and did not come to its end."""


class Owner(Protocol):
    """Who keeps idle connections."""

    def release(self, connection: Connection) -> None:
        """The connection is free for another request."""

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""


class Connection(asyncio.Protocol):
    """A connection to one worker. Made by the event loop, used by `exchange`."""

    __slots__ = (
        "_head",
        "_heard",
        "_is_paused",
        "_loop",
        "_owner",
        "_parser",
        "_response",
        "_transport",
        "address",
        "idle_since",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner, address: Any) -> None:
        self.address = address
        self.idle_since = 0.0
        self._loop = loop
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._head: asyncio.Future[Response] | None = None
        self._response: Response | None = None
        self._heard = False
        self._is_paused = False

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, body: bytes, *, has_body: bool) -> Response:
        """Send a request; return when the head of its answer is here.

        `has_body` is False for a request whose answer never has one (HEAD). Cancelled or failed, the
        connection is closed.
        """
        assert self._parser is None
        assert self._transport is not None
        self._parser = HttpResponseParser(
            cast(BaseProtocol, self),  # the parts of one that the parser uses
            self._loop,
            BUFFER_BYTES,
            max_line_size=HEAD_LINE_BYTES,
            max_field_size=HEAD_LINE_BYTES,
            response_with_body=has_body,
            read_until_eof=True,
            auto_decompress=False,
        )
        self._heard = False
        head: asyncio.Future[Response] = self._loop.create_future()
        self._head = head
        self._send(self._transport, request, body)
        try:
            return await head
        except BaseException:
            if self._head is head:
                self.abort()
            raise  # else the answer is complete, and the connection may be another's by now

    @staticmethod
    def _send(transport: asyncio.Transport, request: bytes, body: bytes) -> None:
        if len(body) <= BUFFER_BYTES:
            transport.write(request + body)
        else:
            transport.write(request)
            transport.write(body)

    def abort(self) -> None:
        """Close at once, dropping what was not sent."""
        self._parser = self._response = None
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:  # rule 1
            self.abort()
            return
        self._heard = True
        try:
            messages, upgraded, _ = parser.feed_data(data)
            if messages:
                self._begin(messages, upgraded)
        except HttpProcessingError:
            self._break("the worker's answer is not valid HTTP")
            return
        if self._response is not None:
            self._progress(self._response)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._parser is not None:
            self._end_of_stream(self._parser, exc)
        self._owner.forget(self)

    # ------------------------------------------------------------ called by the parser and its buffer

    @property
    def connected(self) -> bool:
        return self._transport is not None

    def pause_reading(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    # ------------------------------------------------------------ inside

    def _begin(
        self, messages: list[tuple[RawResponseMessage, StreamReader]], upgraded: bool
    ) -> None:
        """The head of the answer is here; interim ones (1xx) are skipped."""
        final = [pair for pair in messages if pair[0].code >= 200]
        if upgraded or len(final) > 1 or (final and self._response is not None):
            raise HttpProcessingError(message="an answer that was not asked for")
        if final:
            message, payload = final[0]
            self._response = Response(message, payload, self.abort)
            if self._head is not None and not self._head.done():
                self._head.set_result(self._response)

    def _progress(self, response: Response) -> None:
        if not response.is_complete:
            response.arrived()
            return
        self._parser = self._response = self._head = None
        response.ended()
        self._settle(reusable=not response.message.should_close)

    def _settle(self, *, reusable: bool) -> None:
        """After a complete answer: keep the connection, unless it is spent."""
        transport = self._transport
        if transport is None:
            return
        if reusable and not transport.is_closing() and not transport.get_write_buffer_size():
            self._owner.release(self)
        else:
            transport.close()

    def _end_of_stream(self, parser: HttpResponseParser, exc: Exception | None) -> None:
        """The peer closed. That is a fair end only for a body that is framed by it."""
        response = self._response
        try:
            if exc is not None or response is None:
                raise HttpProcessingError(message="connection lost")
            parser.feed_eof()
        except HttpProcessingError:
            self._break("the worker broke its answer off")
        else:
            self._progress(response)

    def _break(self, message: str) -> None:
        response, head = self._response, self._head
        self.abort()
        if response is not None:
            response.ended(BrokenAnswer(message))
        elif head is not None and not head.done():
            head.set_exception(BrokenBeforeAnswer(message, heard=self._heard))
