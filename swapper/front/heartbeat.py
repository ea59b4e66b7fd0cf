"""Keeps a streaming client that waits: after a while a head, then a comment now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from swapper.front.call import Call, swapper_headers
from swapper.front.headers import Header
from swapper.front.openai import HEARTBEAT

STREAM_HEADERS: list[Header] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Heartbeat:
    """Beats for one call from `after_s` on, every `every_s`, until it is stopped.

    The first beat sends a 200: what fails from then on can only be told within the stream. `headers`
    and `beat` are those of the client's dialect.
    """

    def __init__(
        self,
        call: Call,
        after_s: float,
        every_s: float,
        *,
        headers: Sequence[Header] = STREAM_HEADERS,
        beat: Callable[[], bytes] = lambda: HEARTBEAT,
    ) -> None:
        self._call = call
        self._headers = headers
        self._bytes = beat
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(after_s, self._beat)

    def stop(self) -> None:
        """No more beats; stopping twice is nothing."""
        self._timer.cancel()

    def _beat(self) -> None:
        call = self._call
        if call.request.transport is None:  # gone; its handler is being cancelled
            return
        if call.answer is None:
            headers = [*self._headers, *swapper_headers(call)]
            call.status = 200
            call.answer = call.new_answer(
                call.request, 200, "OK", headers, self._bytes(), is_events=True
            )
        else:
            call.answer.send(self._bytes())
        self._timer = self._loop.call_later(self._every_s, self._beat)
