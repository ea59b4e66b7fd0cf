"""From the bytes of tokens to text that is safe to send.

Two things may not leave too early: a character whose bytes have not all come, and text that may yet
turn out to be the beginning of a stop string. Both are kept back, and nothing else is. What comes out
does not depend on how the bytes were cut into tokens.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Sequence


class TextStream:
    """Bytes in, text out, cut at the first stop string that becomes complete.

    The stop string that ends first wins; of those that end together, the longest. After it,
    `is_stopped` is true and nothing comes out any more.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.watch_for(stops)
        self._bytes = b""  # the beginning of a character
        self._held = ""  # what may be the beginning of a stop string
        self.num_sent = 0  # characters given out so far
        self.is_stopped = False
        self.stopped_by: str | None = None

    def watch_for(self, stops: Sequence[str]) -> None:
        """Stop strings that begin in what is pushed from now on."""
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)

    @property
    def position(self) -> int:
        """Where the next token's text begins, in characters of the whole answer."""
        return self.num_sent + len(self._held)

    def push(self, data: bytes) -> str:
        """Take the bytes of one token; give the text that is now certain."""
        if self._bytes:
            data = self._bytes + data
        text, used = utf_8_decode(data, "replace", False)
        self._bytes = data[used:]
        return self._scan(text)

    def finish(self) -> str:
        """The answer is over: give what was kept back."""
        text, _ = utf_8_decode(self._bytes, "replace", True)
        self._bytes = b""
        text = self._scan(text)
        if not self.is_stopped:
            text += self._held
            self.num_sent += len(self._held)
        self._held = ""
        return text

    def _scan(self, text: str) -> str:
        if self._stops and not self.is_stopped:
            text = self._cut(self._held + text)
        elif self.is_stopped:
            return ""
        self.num_sent += len(text)
        return text

    def _cut(self, text: str) -> str:
        """`text` as far as it may be sent; the rest is held, or dropped behind a stop."""
        found = _first_stop(text, self._stops)
        if found is not None:
            start, self.stopped_by = found
            self.is_stopped = True
            self._held = ""
            return text[:start]
        kept = held_back(text, self._stops, self._longest)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """The stop that ends first, and where it begins."""
    found = ((text.find(stop), stop) for stop in stops)
    best = min(
        ((start + len(stop), start, stop) for start, stop in found if start >= 0), default=None
    )
    return None if best is None else best[1:]


def held_back(text: str, markers: Sequence[str], longest: int) -> int:
    """How many characters at the end of `text` may be the beginning of one of `markers`."""
    for size in range(min(len(text), longest - 1), 0, -1):
        tail = text[-size:]
        if any(marker.startswith(tail) for marker in markers):
            return size
    return 0
