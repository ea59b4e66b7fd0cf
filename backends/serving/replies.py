"""What all answers have in common, whole or streamed: identity, accounts, events, the end.

A stream sends one small JSON object for each step of each sequence, so what does not change between
events is built once, and only the new text is escaped.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from backends.serving.choices import Choice, Delta
from backends.serving.engine import Engine

EVENT_END = b"}\n\n"
DONE = b"data: [DONE]\n\n"

_json = msgspec.json.encode


class Reply(ABC):
    """One answer to one request: `n` choices for each of its prompts."""

    prefix: ClassVar[str]
    kind: ClassVar[str]
    chunk_kind: ClassVar[str]
    opening: ClassVar[bytes]  # of a choice in an event, behind its index
    closing: ClassVar[bytes] = b""

    def __init__(self, engine: Engine, choices: Sequence[Choice], n: int = 1) -> None:
        self.tokenizer = engine.tokenizer
        self.choices = choices
        self.includes_usage = False
        self._n = n
        self._about = {
            "id": self.prefix + os.urandom(12).hex(),
            "object": self.kind,
            "created": int(time.time()),
            "model": engine.info.name,
        }
        self._began = time.monotonic()
        self._first = 0.0
        self._unfinished = len(choices)
        self._deltas: list[list[Delta]] = [[] for _ in choices]

    # -- streams -------------------------------------------------------------------------------

    def start_stream(self, includes_usage: bool) -> None:
        """Build what all events share."""
        self.includes_usage = includes_usage
        about = _json({**self._about, "object": self.chunk_kind})[:-1]
        self._head = b"data: " + about + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if includes_usage else b"]}\n\n"
        self._starts = [
            self._head + b'{"index":%d,%b' % (choice.index, self.opening) for choice in self.choices
        ]
        self._open_end = self.closing + b',"logprobs":null,"finish_reason":null}' + self._tail

    def _event(
        self, choice: Choice, said: bytes, logprobs: object = None, reason: str | None = None
    ) -> bytes:
        """One event: what a choice said, its scores, why it ended."""
        start = self._starts[choice.index]
        if logprobs is None and reason is None:
            return start + said + self._open_end
        ends = {"logprobs": logprobs, "finish_reason": reason}
        if reason is not None:
            ends |= _stopped_by(choice)
        return start + said + self.closing + b"," + _json(ends)[1:] + self._tail

    def _first_event(self, choice: Choice, said: bytes) -> bytes:
        """The first one of a choice. Where the stream is to tell its usage, it says by llama.cpp's
        timings how long the prompt is: `usage` must be null there."""
        event = self._event(choice, said)
        if not self.includes_usage:
            return event
        return event[: -len(EVENT_END)] + b',"timings":' + _json(self.timings()) + EVENT_END

    @abstractmethod
    def _events(self, choice: Choice, delta: Delta, is_first: bool) -> bytes:
        """The events that tell one delta."""

    def chunk(self, choice: Choice, delta: Delta) -> tuple[bytes, bool]:
        """One delta as bytes to send, and whether they end the stream."""
        is_first = not self._deltas[choice.index]
        if is_first:
            self._deltas[choice.index].append(delta)
            self._first = self._first or time.monotonic()
        events = self._events(choice, delta, is_first)
        if delta.finish_reason is None:
            return events, False
        self._unfinished -= 1
        return (events, False) if self._unfinished else (events + self._end(), True)

    def _end(self) -> bytes:
        if not self.includes_usage:
            return DONE
        usage = _json({"usage": self.usage(), "timings": self.timings()})[1:]
        return self._head + b"]," + usage + b"\n\n" + DONE

    # -- whole answers -------------------------------------------------------------------------

    def collect(self, choice: Choice, delta: Delta) -> None:
        """Keep one delta for the whole answer."""
        self._first = self._first or time.monotonic()
        self._deltas[choice.index].append(delta)

    def body(self) -> bytes:
        """The whole answer."""
        return _json(
            {
                **self._about,
                "choices": [
                    {**self._whole(choice, deltas), **_stopped_by(choice)}
                    for choice, deltas in zip(self.choices, self._deltas, strict=True)
                ],
                "usage": self.usage(),
                "timings": self.timings(),
            }
        )

    @abstractmethod
    def _whole(self, choice: Choice, deltas: Sequence[Delta]) -> dict[str, Any]:
        """One choice of the whole answer."""

    # -- accounts ------------------------------------------------------------------------------

    def usage(self) -> dict[str, Any]:
        """Tokens in and out. A prompt counts once, however many choices continue it."""
        prompts = self.choices[:: self._n]
        num_prompt = sum(len(choice.request.prompt) for choice in prompts)
        num_new = sum(choice.num_tokens for choice in self.choices)
        num_cached = sum(choice.num_cached_tokens for choice in prompts)
        usage: dict[str, Any] = {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_new,
            "total_tokens": num_prompt + num_new,
            "prompt_tokens_details": {"cached_tokens": num_cached},
        }
        num_reasoning = sum(choice.num_reasoning_tokens for choice in self.choices)
        if num_reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": num_reasoning}
        return usage

    def timings(self) -> dict[str, float]:
        """How long the prompt and the answer took, in llama.cpp's words."""
        usage = self.usage()
        num_cached = usage["prompt_tokens_details"]["cached_tokens"]
        first = self._first or time.monotonic()
        return {
            "cache_n": num_cached,
            "prompt_n": usage["prompt_tokens"] - num_cached,
            "prompt_ms": round((first - self._began) * 1000, 3),
            "predicted_n": usage["completion_tokens"],
            "predicted_ms": round((time.monotonic() - first) * 1000, 3),
        }


def _stopped_by(choice: Choice) -> dict[str, str]:
    """The stop string that ended the answer, in vLLM's words; nothing where none did."""
    return {} if choice.stopped_by is None else {"stop_reason": choice.stopped_by}
