"""Tool calls in an answer's text, written as Hermes and Qwen models do:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Oslo"}}
    </tool_call>

Text outside the tags is content. White space beside a call belongs to neither. What stands between
the tags and is no call stays content as it was written, so nothing the model said is lost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import msgspec

from backends.serving.text import held_back

_OPEN = "<tool_call>"
_CLOSE = "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One whole call; `arguments` is JSON as the model spelled it."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: "call_" + os.urandom(12).hex())


class _Written(msgspec.Struct):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class ToolCallReader:
    """Splits text, as it comes, into content and whole calls."""

    def __init__(self, max_calls: int | None = None) -> None:
        self._max_calls = max_calls
        self._text = ""  # not yet decided, or inside a call
        self._space = ""  # what stood before the opening tag
        self._is_inside = False
        self._is_after_call = False  # nothing but white space has come since a call
        self.num_calls = 0

    @property
    def is_done(self) -> bool:
        """As many calls as were allowed: the rest of the answer is not wanted."""
        return self._max_calls is not None and self.num_calls >= self._max_calls

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """Take text; give the content and the calls that are now certain."""
        self._text += text
        content: list[str] = []
        calls: list[ToolCall] = []
        while not self.is_done:
            step = self._read_call if self._is_inside else self._read_content
            if not step(content, calls):
                break
        return "".join(content), calls

    def finish(self) -> tuple[str, list[ToolCall]]:
        """The answer is over: give what was kept back. A call without its end tag still counts."""
        rest, self._text = self._text, ""
        if self.is_done:
            return "", []
        if not self._is_inside:
            return rest.lstrip() if self._is_after_call else rest, []
        content: list[str] = []
        calls: list[ToolCall] = []
        self._decide(rest, "", content, calls)
        return "".join(content), calls

    def _read_content(self, content: list[str], calls: list[ToolCall]) -> bool:
        """Content before the next opening tag; false when there is no such tag yet."""
        if self._is_after_call:
            self._text = self._text.lstrip()
            self._is_after_call = not self._text
        before, tag, after = self._text.partition(_OPEN)
        # White space is kept back together with what may be a tag.
        kept = 0 if tag else held_back(before, (_OPEN,), len(_OPEN))
        certain = before[: len(before) - kept].rstrip()
        content.append(certain)
        if not tag:
            self._text = before[len(certain) :]
            return False
        self._text, self._space, self._is_inside = after, before[len(certain) :], True
        return True

    def _read_call(self, content: list[str], calls: list[ToolCall]) -> bool:
        """What stands between two tags; false when the closing one has not come yet."""
        inside, tag, after = self._text.partition(_CLOSE)
        if not tag:
            return False
        self._text, self._is_inside = after, False
        self._decide(inside, _CLOSE, content, calls)
        return True

    def _decide(self, inside: str, close: str, content: list[str], calls: list[ToolCall]) -> None:
        call = _parse(inside)
        if call is None:
            content.append(self._space + _OPEN + inside + close)
            return
        calls.append(call)
        self.num_calls += 1
        self._is_after_call = True


def _parse(text: str) -> ToolCall | None:
    try:
        written = msgspec.json.decode(text, type=_Written)
        arguments = bytes(written.arguments)
        if arguments.startswith(b'"'):  # some models write the arguments as a string of JSON
            arguments = msgspec.json.decode(arguments, type=str).encode()
            msgspec.json.decode(arguments, type=dict)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    if arguments == b"null":
        arguments = b"{}"
    return ToolCall(written.name, arguments.decode()) if arguments.startswith(b"{") else None
