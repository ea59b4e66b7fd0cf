"""A worker's answer on its way to the client."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from swapper.errors import WorkerLost
from swapper.front.answer import Answer, WholeLines
from swapper.front.call import Call, swapper_headers, timings, timings_comment
from swapper.front.headers import response_headers
from swapper.front.openai import error_event
from swapper.front.refusal import refusal_of
from swapper.front.response import Response

LONGEST_EVENT: Final = 16 * 1024 * 1024
_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def pass_on(call: Call, response: Response, *, keep_alive: bool) -> Answer:
    """Send the worker's answer as it comes; what is here already goes out in one write."""
    first, is_whole = response.take(), response.is_complete
    lines = WholeLines() if not is_whole and is_event_stream(response) else None
    length = response.header("content-length")
    answer = call.answer = call.new_answer(
        call.request,
        response.status,
        response.reason,
        response_headers(response.headers) + swapper_headers(call),
        first if lines is None else lines.whole(first),
        length=int(length) if length else None,
        is_whole=is_whole,
        is_events=lines is not None,
        keep_alive=keep_alive,
    )
    if not is_whole:
        await _relay(call, answer, response, lines)
    return answer


async def pass_into_stream(call: Call, answer: Answer, response: Response) -> None:
    """Send the worker's answer into a stream that a heartbeat has begun.

    Its status can no longer be told, and the timings stand in a comment and in the last chunk; an answer
    that is no event stream becomes one event.
    """
    answer.send(timings_comment(call))
    if response.status == 200 and is_event_stream(response):
        await _relay(call, answer, response, TimedLines(timings(call)))
        return
    body = await _read_whole(response)
    if body is None or not _is_json(body):
        raise WorkerLost(f"the worker answered with status {response.status} and no JSON")
    answer.send(b"data: " + msgspec.json.format(body, indent=-1) + b"\n\n")
    if response.status == 200:
        answer.send(b"data: [DONE]\n\n")
    answer.finish()


def is_event_stream(response: Response) -> bool:
    """It carries events in plain text, so that one of ours may follow."""
    if not response.header("content-type").lower().startswith("text/event-stream"):
        return False
    return response.header("content-encoding") in ("", "identity")


class TimedLines(WholeLines):
    """Lines of OpenAI's stream; the chunk that ends a choice gets `swapper: {queue_ms, load_ms, swap_ms}`.

    Every other line stays byte for byte as it was.
    """

    def __init__(self, timings: Mapping[str, float]) -> None:
        super().__init__()
        self._timings = msgspec.Raw(msgspec.json.encode(timings))

    def whole(self, data: bytes) -> bytes:
        lines = super().whole(data)
        if _FINISH.search(lines) is None:
            return lines
        return b"".join(self._timed(line) for line in lines.splitlines(keepends=True))

    def _timed(self, line: bytes) -> bytes:
        if not line.startswith(b"data:") or _FINISH.search(line) is None:
            return line
        try:
            chunk = _fields.decode(line[len(b"data:") :])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return line
        chunk["swapper"] = self._timings
        end = line[len(line.rstrip(b"\r\n")) :]
        return b"data: " + msgspec.json.encode(chunk) + end


async def _relay(call: Call, answer: Answer, response: Response, lines: WholeLines | None) -> None:
    try:
        await response.relay(answer.send if lines is None else _sink(answer, lines), answer.drain)
    except WorkerLost as error:
        refusal = refusal_of(error)
        call.error = refusal.code
        answer.fail(error_event(refusal))
        return
    if lines is not None and lines.rest():
        answer.send(lines.rest())
    answer.finish()


def _sink(answer: Answer, lines: WholeLines) -> Callable[[bytes], bool]:
    def sink(data: bytes) -> bool:
        whole = lines.whole(data)
        return answer.send(whole) if whole else False

    return sink


async def _read_whole(response: Response) -> bytes | None:
    """The body of an answer; None if it is far too long for one event."""
    body = response.take()
    while not response.is_complete:
        await response.wait()
        body += response.take()
        if len(body) > LONGEST_EVENT:
            return None
    return body + response.take()


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
