"""Tells a client its answer in its own dialect, or why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
import structlog
from aiohttp import web

from swapper.errors import SwapperError, Unavailable, WorkerLost
from swapper.front.answer import CLIENT_LEFT, Answer, nothing_for
from swapper.front.call import Call, swapper_headers, timings_comment
from swapper.front.dialects.dialect import (
    EVENT_STREAM,
    Dialect,
    Json,
    StreamTranslation,
    Translation,
)
from swapper.front.dialects.events import EventReader
from swapper.front.dialects.reading import (
    as_chunks,
    has_finished,
    refusal_from,
    refusal_of_error,
)
from swapper.front.headers import Header
from swapper.front.openai import json_response
from swapper.front.passing import is_event_stream
from swapper.front.proxy import SHUTTING_DOWN
from swapper.front.refusal import Refusal, refusal_of
from swapper.front.response import Response

log = structlog.get_logger("swapper.front")

LONGEST_ANSWER: Final = 64 * 1024 * 1024  # of a worker, where it comes whole
LAST_BYTES_S: Final = 1.0  # for a worker to end its stream after it has said that it is over
DONE: Final = b"[DONE]"
UNREADABLE: Final = (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError)

Read = TypeVar("Read")


class UpstreamRefused(SwapperError):
    """The worker answered with an error."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Telling:
    """One client, and what it has been told. `translation` is set where it wants a stream."""

    def __init__(self, call: Call, dialect: Dialect) -> None:
        self.translation: StreamTranslation | None = None
        self._call = call
        self._dialect = dialect
        self._has_begun = False  # something of the answer was sent, and not just keep-alives

    def stream_headers(self) -> list[Header]:
        """Of a stream in this dialect, but for swapper's own."""
        return [
            (b"content-type", self._dialect.stream_type.encode()),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *self._id_header(),
        ]

    # ------------------------------------------------------------ answers

    async def pass_on(self, response: Response, translation: Translation) -> Answer:
        """The worker's answer, as it comes; raises UpstreamRefused and WorkerLost."""
        if response.status != 200:
            body = await _read_whole(response)
            after = response.header("retry-after")
            raise UpstreamRefused(refusal_from(response.status, body, after))
        streamed = translation.streamed
        if streamed is not None and is_event_stream(response):
            self._call.has_begun = True
            return await self._stream(response, _Stream(streamed))
        answer = await read_answer(response)
        if streamed is not None:
            return self._as_stream(answer, streamed)
        return self.whole(_readable(translation.whole, answer))

    async def _stream(self, response: Response, stream: _Stream) -> Answer:
        while not stream.is_over:
            await response.wait()
            is_last = response.is_complete
            said = stream.feed(response.take())
            if is_last:
                said += stream.ended()
            if said and self._send(said):
                await self._answer.drain()
            if stream.error is not None:
                raise stream.error
        self._answer.finish()
        await _rest(response)
        return self._answer

    def _as_stream(self, answer: Json, translation: StreamTranslation) -> Answer:
        """From a server that does not stream."""
        said = b"".join(_readable(translation.chunk, c) for c in _readable(_chunks, answer))
        self._send(said + translation.end())
        self._answer.finish()
        return self._answer

    def whole(self, value: object) -> Answer:
        """An answer that is all here."""
        call = self._call
        call.has_begun, call.status = True, 200
        headers = [(b"content-type", b"application/json"), *self._id_header()]
        call.answer = call.new_answer(
            call.request, 200, "OK", [*headers, *swapper_headers(call)],
            msgspec.json.encode(value), is_whole=True,
        )  # fmt: skip
        return call.answer

    def at_once(self, translation: Translation) -> Answer:
        """What is said where no worker was asked anything."""
        if (streamed := translation.streamed) is None:
            return self.whole(translation.whole({}))
        self._send(streamed.end())
        self._answer.finish()
        return self._answer

    def _send(self, said: bytes) -> bool:
        """Send a piece of a stream, its head first; True when the client cannot take more."""
        call = self._call
        if call.answer is None:
            call.has_begun, call.status, self._has_begun = True, 200, True
            headers = [*self.stream_headers(), *swapper_headers(call)]
            call.answer = call.new_answer(call.request, 200, "OK", headers, said, is_events=True)
            return False
        if not self._has_begun and self._dialect.stream_type == EVENT_STREAM:
            said = timings_comment(call) + said
        self._has_begun = True
        return call.answer.send(said)

    @property
    def _answer(self) -> Answer:
        assert self._call.answer is not None
        return self._call.answer

    # ------------------------------------------------------------ errors

    def failed(self, error: Exception) -> web.StreamResponse:
        """Why there is no answer, or no more of it."""
        call = self._call
        if isinstance(error, ConnectionError):  # writing to the client failed
            self.cut(is_shutting_down=False)
            return nothing_for(call.request)
        if not isinstance(error, SwapperError):
            log.exception("a request failed inside", request_id=call.request_id, exc_info=error)
        refusal = error.refusal if isinstance(error, UpstreamRefused) else refusal_of(error)
        call.error = refusal.code or refusal.type
        if call.answer is not None:
            self._break(refusal)
            return call.answer
        call.status = refusal.status
        return refused(self._dialect, refusal, call.request_id, swapper_headers(call))

    def cut(self, *, is_shutting_down: bool) -> None:
        """The handler is being cancelled: the client has left, or the grace at shutdown is over."""
        call = self._call
        call.error = "shutting_down" if is_shutting_down else "client_left"
        if call.answer is None:
            call.status = CLIENT_LEFT
        elif is_shutting_down:
            self._break(refusal_of(shutting_down()))

    def _break(self, refusal: Refusal) -> None:
        answer = self._answer
        if not answer.is_finished and self.translation is not None:
            answer.send(self.translation.broken(refusal, self._call.request_id))
            answer.finish()

    def _id_header(self) -> list[Header]:
        name = self._dialect.id_header
        if name == "x-request-id":  # said anyway
            return []
        return [(name.encode(), self._call.request_id.encode())]


def refused(
    dialect: Dialect, refusal: Refusal, request_id: str, headers: list[Header] | None = None
) -> web.Response:
    """A refusal as an answer of its own."""
    told = {name.decode(): value.decode() for name, value in headers or ()}
    told |= {"x-request-id": request_id, dialect.id_header: request_id, **dict(refusal.headers)}
    if refusal.retry_after_s is not None:
        told["retry-after"] = str(refusal.retry_after_s)
    return json_response(dialect.refused(refusal, request_id), refusal.status, told)


def shutting_down() -> Unavailable:
    """For who comes, or is still there, at the end."""
    return Unavailable("shutting_down", SHUTTING_DOWN, retry_after_s=5.0)


class _Stream:
    """A worker's stream, translated. `error` is raised once what came before it was sent."""

    def __init__(self, translation: StreamTranslation) -> None:
        self.is_over = False
        self.error: SwapperError | None = None
        self._translation = translation
        self._events = EventReader()
        self._has_finished = False  # a choice said why it ended

    def feed(self, piece: bytes) -> bytes:
        said = b""
        try:
            for data in _readable(self._events.feed, piece):
                if self.is_over:
                    break
                said += self._event(data)
        except SwapperError as error:
            self.error = error
        return said

    def ended(self) -> bytes:
        """The connection says that this was all. Some servers send no [DONE]."""
        if self.is_over or self.error is not None:
            return b""
        if not self._has_finished:
            self.error = WorkerLost("the worker ended its stream in the middle of an answer")
            return b""
        self.is_over = True
        return self._translation.end()

    def _event(self, data: bytes) -> bytes:
        if data == DONE:
            self.is_over = True
            return self._translation.end()
        chunk = _json(data)
        if chunk.get("error"):
            raise UpstreamRefused(_refusal_within(chunk))
        said = _readable(self._translation.chunk, chunk)
        self._has_finished = self._has_finished or _readable(has_finished, chunk)
        return said


def _refusal_within(chunk: Json) -> Refusal:
    """Of an error in a stream; its status, where the error tells one."""
    error = chunk["error"]
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return refusal_of_error(chunk, status)


def _readable(read: Callable[[Any], Read], value: Any) -> Read:
    """What `read` makes of a worker's words; raises WorkerLost where they make no sense."""
    try:
        return read(value)
    except UNREADABLE as error:
        log.warning("an answer could not be translated", reason=repr(error))
        raise WorkerLost("the worker's answer cannot be read") from error


def _json(data: bytes) -> Json:
    value = _readable(msgspec.json.decode, data)
    if not isinstance(value, dict):
        raise WorkerLost("the worker's answer is not a JSON object")
    return value


async def read_answer(response: Response) -> Json:
    """A worker's answer that comes whole; raises WorkerLost."""
    return _json(await _read_whole(response))


def _chunks(answer: Json) -> list[Json]:
    return list(as_chunks(answer))


async def _read_whole(response: Response) -> bytes:
    body = bytearray()
    while True:
        await response.wait()
        is_last = response.is_complete
        body += response.take()
        if is_last:
            return bytes(body)
        if len(body) > LONGEST_ANSWER:
            raise WorkerLost("the worker's answer is longer than anybody could read")


async def _rest(response: Response) -> None:
    """Let the worker's last bytes come, so that its connection can be used again."""
    try:
        async with asyncio.timeout(LAST_BYTES_S):
            while not response.is_complete:
                await response.wait()
                response.take()
    except (TimeoutError, WorkerLost):
        pass
