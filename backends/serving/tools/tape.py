"""An answer as it comes, read by scripts that need not know where its pieces were cut.

A script is a generator: it reads what is there through a Tape and yields where it needs more. Whatever
it hears (content, reasoning, calls) is given out as soon as it is certain and never taken back, so a
stream says the same as a whole answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from backends.serving.text import held_back

T = TypeVar("T")
Script = Generator[None, None, T]
Sink = Callable[[str], None]


class NoCall(Exception):
    """What looked like a call is none."""


class Cut(Exception):
    """The answer is over in the middle of a call."""


def call_id() -> str:
    """A fresh id for a call."""
    return "call_" + os.urandom(12).hex()


@dataclass(slots=True)
class CallPart:
    """What has come of one call: its beginning, with `name` and `id`, or more of its arguments."""

    index: int
    arguments: str = ""  # JSON, or a piece of it, as the model spelled it
    name: str = ""
    id: str = ""


@dataclass(slots=True)
class Heard:
    """What a piece of an answer has made certain."""

    content: str = ""
    reasoning: str = ""
    calls: Sequence[CallPart] = ()


class Flow:
    """Text for the client. White space goes out only with what follows it, and not at the start."""

    def __init__(self, *, drops_space: bool = False) -> None:
        self._parts: list[str] = []
        self._space = ""
        self._drops_space = drops_space

    def say(self, text: str) -> None:
        """More of the text."""
        if self._drops_space:
            text = text.lstrip()
            self._drops_space = not text
        text = self._space + text
        certain = text.rstrip()
        self._space = text[len(certain) :]
        if certain:
            self._parts.append(certain)

    def drop_space(self) -> None:
        """White space here belongs to nobody."""
        self._space, self._drops_space = "", True

    def keep_space(self) -> None:
        """The text is over: white space at its end was the model's own."""
        self._parts.append(self._space)
        self._space = ""

    def take(self) -> str:
        """What was said since the last time."""
        if not self._parts:
            return ""
        text = "".join(self._parts)
        self._parts.clear()
        return text


@dataclass(slots=True)
class Tape:
    """The text that has come, a place in it, and what has been heard so far."""

    call_id: Callable[[str, int], str] = lambda name, index: call_id()
    is_over: bool = False
    num_calls: int = 0  # calls that have begun
    num_whole_calls: int = 0
    content: Flow = field(default_factory=Flow)
    reasoning: Flow = field(default_factory=lambda: Flow(drops_space=True))
    _text: str = ""
    _at: int = 0
    _kept_from: int | None = None  # a place that may be gone back to
    _calls: list[CallPart] = field(default_factory=list)

    # -- whoever has the text ------------------------------------------------------------------

    def add(self, text: str) -> None:
        """More has come."""
        self._text += text

    def take(self) -> Heard:
        """What has become certain since the last time."""
        calls, self._calls = self._calls, []
        return Heard(self.content.take(), self.reasoning.take(), calls)

    def rest(self) -> str:
        """What no script has read; it is not kept."""
        text, self._text = self._text[self._at :], ""
        self._at = 0
        return text

    # -- scripts: reading ----------------------------------------------------------------------

    def more(self) -> Script[bool]:
        """Wait for more text; false when the answer is over."""
        if self.is_over:
            return False
        if self._kept_from is None:
            self._text = self._text[self._at :]
            self._at = 0
        yield
        return True

    def mark(self) -> int:
        """A place to go back to, until `forget`."""
        self._kept_from = self._at if self._kept_from is None else self._kept_from
        return self._at

    def go_back(self, place: int) -> None:
        """Read again from a mark."""
        self._at, self._kept_from = place, None

    def unread(self, count: int) -> None:
        """Go back over characters that were read since the last wait."""
        self._at -= count

    def forget(self) -> None:
        """There is no going back."""
        self._kept_from = None

    def peek(self) -> Script[str]:
        """The next character; empty at the end."""
        while self._at == len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self._at]

    def next(self) -> Script[str]:
        """The next character, read over; empty at the end."""
        char = yield from self.peek()
        self._at += len(char)
        return char

    def skip_space(self) -> Script[None]:
        """Read over white space."""
        while True:
            rest = self._text[self._at :]
            self._at = len(self._text) - len(rest.lstrip())
            if self._at < len(self._text) or not (yield from self.more()):
                return

    def accept(self, *literals: str) -> Script[str]:
        """Read over the one of `literals` that comes next; empty when none does."""
        while True:
            rest = self._text[self._at :]
            for literal in literals:
                if rest.startswith(literal):
                    self._at += len(literal)
                    return literal
            may_come = any(literal.startswith(rest) for literal in literals)
            if not may_come or not (yield from self.more()):
                return ""

    def pass_until(
        self, markers: Sequence[str], sink: Sink, *, is_open: bool = False
    ) -> Script[str]:
        """Give text to `sink` up to the first of `markers`, and read over that; which one it was,
        empty for none before the end. With `is_open`, one of them must come: what may be the
        beginning of it is not text, even where the answer is broken off."""
        longest = max(map(len, markers))
        while True:
            rest = self._text[self._at :]
            start, marker = _first(rest, markers)
            if marker:
                sink(rest[:start])
                self._at += start + len(marker)
                return marker
            is_text = self.is_over and not is_open
            kept = 0 if is_text else held_back(rest, markers, longest)
            sink(rest[: len(rest) - kept])
            self._at = len(self._text) - kept
            if not (yield from self.more()):
                return ""

    def until(self, *markers: str) -> Script[tuple[str, str]]:
        """The text up to the first of `markers`, and which it was."""
        parts: list[str] = []
        marker = yield from self.pass_until(markers, parts.append)
        return "".join(parts), marker

    def until_over(self) -> Script[str]:
        """All that is still to come."""
        while (yield from self.more()):
            pass
        self._at, start = len(self._text), self._at
        return self._text[start:]

    def pass_json(self, sink: Sink) -> Script[bool]:
        """Give one JSON value to `sink`, as it is written; false when the answer ends inside it."""
        scanner = JsonScanner()
        while True:
            rest = self._text[self._at :]
            end = scanner.scan(rest)
            stop = len(rest) if end is None else end
            if stop:
                sink(rest[:stop])
            self._at += stop
            if end is not None:
                return True
            if not (yield from self.more()):
                return scanner.is_scalar

    def json(self) -> Script[str | None]:
        """One JSON value as it is written; None when the answer ends inside it."""
        parts: list[str] = []
        return "".join(parts) if (yield from self.pass_json(parts.append)) else None

    def expect(self, *literals: str) -> Script[str]:
        """Read over the one of `literals` that must come next; raises NoCall, or Cut at the end."""
        found = yield from self.accept(*literals)
        if not found:
            yield from self.refuse()
        return found

    def refuse(self) -> Script[NoReturn]:
        """What comes next is not what a call goes on with: raises NoCall, or Cut at the end."""
        if (yield from self.peek()):
            raise NoCall
        raise Cut

    # -- scripts: calls ------------------------------------------------------------------------

    def begin_call(self, name: str) -> None:
        """A call of `name` has come; arguments follow."""
        self.forget()
        self.content.drop_space()
        self._calls.append(CallPart(self.num_calls, "", name, self.call_id(name, self.num_calls)))
        self.num_calls += 1

    def argue(self, text: str) -> None:
        """More of the arguments of the call that has begun."""
        last = self._calls[-1] if self._calls else None
        if last is not None and last.index == self.num_calls - 1:
            last.arguments += text
        elif text:
            self._calls.append(CallPart(self.num_calls - 1, text))

    def end_call(self) -> None:
        """The call is whole."""
        self.num_whole_calls += 1

    def call(self, name: str, arguments: str) -> None:
        """A whole call at once."""
        self.begin_call(name)
        self.argue(arguments)
        self.end_call()


def _first(text: str, markers: Sequence[str]) -> tuple[int, str]:
    found = [(start, marker) for marker in markers if (start := text.find(marker)) >= 0]
    return min(found, default=(-1, ""))


_OUTSIDE = re.compile(r'[{}\[\]",\s]')
_INSIDE = re.compile(r'["\\]')


class JsonScanner:
    """Finds where a JSON value ends, without reading more of it than brackets and quotes."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._has_begun = False
        self.is_scalar = True  # a number or a word, whose end nothing marks

    @property
    def is_in_text(self) -> bool:
        """Whether the value has been read up to the middle of a text."""
        return self._in_string

    def scan(self, text: str) -> int | None:
        """Where in `text` the value ends; None: not in it."""
        at = 0
        while at < len(text):
            if self._is_escaped:
                self._is_escaped = False
                at += 1
                continue
            found = (_INSIDE if self._in_string else _OUTSIDE).search(text, at)
            if found is None:
                self._has_begun = True
                return None
            self._has_begun = self._has_begun or found.start() > at or not found[0].isspace()
            at = found.end()
            if self._step(found[0]):
                return found.start() if self.is_scalar else at
        return None

    def _step(self, char: str) -> bool:
        """Whether the value ends at `char`."""
        if self._in_string:
            self._is_escaped = char == "\\"
            self._in_string = self._is_escaped
            return not self._in_string and not self._depth
        if char == '"':
            self._in_string, self.is_scalar = True, False
        elif char in "{[":
            self._depth += 1
            self.is_scalar = False
        elif char in "}]":
            self._depth -= 1
            return self._depth <= 0
        else:  # a comma or white space
            return not self._depth and self._has_begun
        return False
