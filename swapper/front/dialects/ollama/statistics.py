"""The figures at the end of an answer: tokens, and times in nanoseconds."""

from __future__ import annotations

from collections.abc import Callable

from swapper.front.dialects.dialect import Granted, Json
from swapper.front.dialects.reading import first_choice


class Statistics:
    """One answer's. What a worker says of its times is taken; where it says nothing they are measured
    here, as far as the answer comes in pieces. What is not known is not told."""

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._load_s = 0.0
        self._granted_at: float | None = None
        self._first_at: float | None = None
        self._is_in_pieces = False
        self._usage: Json = {}
        self._timings: Json = {}

    def granted(self, granted: Granted) -> None:
        """A worker was found; again, if the first one died."""
        self._load_s = granted.load_s
        self._granted_at = self._elapsed()

    def saw(self, chunk: Json) -> None:
        """A piece of the answer came, or all of it."""
        self._usage = chunk.get("usage") or self._usage
        self._timings = chunk.get("timings") or self._timings
        if self._first_at is None:
            choice = first_choice(chunk)
            self._first_at = self._elapsed()
            self._is_in_pieces = choice is not None and not choice.get("finish_reason")

    def told(self) -> Json:
        """The fields, now that the answer is over."""
        now = self._elapsed()
        told = {"total_duration": _nanoseconds(now), "load_duration": _nanoseconds(self._load_s)}
        read_s, wrote_s = self._spans(now)
        if (count := self._usage.get("prompt_tokens")) is not None:
            told["prompt_eval_count"] = count
        if read_s is not None:
            told["prompt_eval_duration"] = _nanoseconds(read_s)
        if (count := self._usage.get("completion_tokens")) is not None:
            told["eval_count"] = count
        if wrote_s is not None:
            told["eval_duration"] = _nanoseconds(wrote_s)
        return told

    def _spans(self, now: float) -> tuple[float | None, float | None]:
        """How long the prompt was read and the answer written."""
        read_ms, wrote_ms = self._timings.get("prompt_ms"), self._timings.get("predicted_ms")
        if isinstance(read_ms, int | float) and isinstance(wrote_ms, int | float):
            return read_ms / 1e3, wrote_ms / 1e3
        if self._granted_at is None or self._first_at is None or not self._is_in_pieces:
            return None, None
        return self._first_at - self._granted_at, now - self._first_at


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
