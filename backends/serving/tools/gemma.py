"""Calls in Gemma's own notation, whose strings stand between marks of their own:

    <|tool_call>call:weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|>

A call is known when its text is whole.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from backends.serving.tools.calls import (
    Plain,
    Property,
    Tools,
    Write,
    call_rules,
    embedded,
    in_order,
    literal,
    properties,
    text_until,
)
from backends.serving.tools.tape import Cut, NoCall, Script, Tape

_HEAD = re.compile(r"\s*call:([^\s{]+)\s*")
_WORD = re.compile(r"[^,{}\[\]:]+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class GemmaCalls(Plain):
    """Gemma 4 and FunctionGemma differ in their marks."""

    begin: str
    end: str
    quote: str

    @property
    def starts(self) -> tuple[str, ...]:
        return (self.begin,)

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.begin, self.end, self.quote)

    def read(self, tape: Tape, tools: Tools) -> Script[None]:
        """As CallFormat says."""
        text, marker = yield from tape.until(self.end)
        head = _HEAD.match(text)
        if head is None:
            raise NoCall if marker else Cut
        try:
            value, end = _Notation(text, self.quote).value(head.end())
        except (ValueError, IndexError, RecursionError):
            raise (NoCall if marker else Cut) from None
        if not isinstance(value, dict) or text[end:].strip():
            raise NoCall if marker else Cut
        tape.call(head[1], json.dumps(value, ensure_ascii=False))

    def rules(self, tools: Tools, write: Write) -> str:
        """As CallFormat says. Text is followed as Gemma writes it, anything else as JSON."""
        calls, lines = [], []
        for index, tool in enumerate(tools):
            terms = []
            for place, given in enumerate(properties(tool)):
                rule = f"value_{index}_{place}"
                lines += self._value_rules(rule, given, write)
                terms.append((f"{literal(given.name + ':')} {rule}", given.is_required))
            head = literal(f"call:{tool.name}{{")
            arguments = in_order(terms, '","')
            calls.append(f'{write(self.begin)} {head} {arguments} "}}" {write(self.end)}')
        return "\n".join([*call_rules(calls), *lines])

    def _value_rules(self, rule: str, given: Property, write: Write) -> list[str]:
        quote = write(self.quote)
        is_free = given.is_text and not {"enum", "const"} & set(given.schema)
        if not is_free:
            return [f"{rule}: {embedded(given.schema)}"]
        return [f"{rule}: {quote} text_{rule}", *text_until(f"text_{rule}", quote)]


class _Notation:
    """Reads one value; raises ValueError or IndexError for what is none."""

    def __init__(self, text: str, quote: str) -> None:
        self._text = text
        self._quote = quote

    def value(self, at: int) -> tuple[object, int]:
        """The value at `at`, and where it ends."""
        at = self._past_space(at)
        if self._text.startswith(self._quote, at):
            start = at + len(self._quote)
            end = self._text.index(self._quote, start)
            return self._text[start:end], end + len(self._quote)
        if self._text[at] == "{":
            return self._object(at + 1)
        if self._text[at] == "[":
            return self._list(at + 1)
        if found := _STRING.match(self._text, at):
            return json.loads(found[0], strict=False), found.end()
        word = _WORD.match(self._text, at)
        if word is None:
            raise ValueError(self._text[at])
        return _plain(word[0].strip()), word.end()

    def _object(self, at: int) -> tuple[object, int]:
        values: dict[str, object] = {}
        while True:
            at = self._past_space(at)
            if self._text[at] == "}":
                return values, at + 1
            key, at = self.value(at)
            at = self._past_space(at)
            if self._text[at] != ":":
                raise ValueError(self._text[at])
            values[str(key)], at = self.value(at + 1)
            at = self._past_comma(at, "}")

    def _list(self, at: int) -> tuple[object, int]:
        values: list[object] = []
        while True:
            at = self._past_space(at)
            if self._text[at] == "]":
                return values, at + 1
            value, at = self.value(at)
            values.append(value)
            at = self._past_comma(at, "]")

    def _past_space(self, at: int) -> int:
        while self._text[at].isspace():
            at += 1
        return at

    def _past_comma(self, at: int, closing: str) -> int:
        at = self._past_space(at)
        if self._text[at] == ",":
            return at + 1
        if self._text[at] != closing:
            raise ValueError(self._text[at])
        return at


def _plain(word: str) -> object:
    try:
        return json.loads(word, parse_constant=str)
    except ValueError:
        return word
