"""Values in Python's notation and in Gemma's, told as JSON while they come."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from dataclasses import dataclass
from math import isfinite

from backends.serving.tools.tape import Cut, Script, Tape

_CLOSING = {"{": "}", "[": "]", "(": ")"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS = {"true": "true", "false": "false", "null": "null"}
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
_PREFIXES = tuple(f"{prefix}{quote}" for prefix in "rRfFbBuU" for quote in "\"'")
_SIMPLE = dict(zip('bfnrt"\\', ("\\b", "\\f", "\\n", "\\r", "\\t", '\\"', "\\\\"), strict=True))
_PYTHON_SIMPLE = {"'": "'", "a": "\\u0007", "v": "\\u000b", "\n": ""}
_CODES = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True, slots=True)
class Notation:
    """How values are written. JSON is a part of it either way."""

    mark: str = ""  # stands around texts in which nothing is escaped
    is_python: bool = False

    def pass_value(self, tape: Tape) -> Script[None]:
        """Tell one value as arguments of the call that has begun. Raises NoCall or Cut."""
        closers: list[str] = []
        while True:
            yield from self._pass_beginning(tape, closers)
            while closers:
                yield from tape.skip_space()
                if (yield from tape.accept(",")):
                    yield from tape.skip_space()
                    if not (yield from tape.peek()):
                        raise Cut
                    if not (yield from tape.accept(closers[-1])):
                        tape.argue(", ")
                        break
                else:
                    yield from tape.expect(closers[-1])
                tape.argue("}" if closers.pop() == "}" else "]")
            else:
                return

    def _pass_beginning(self, tape: Tape, closers: list[str]) -> Script[None]:
        """Up to the end of the next value that holds no others, or that is empty."""
        if closers and closers[-1] == "}":
            yield from self._pass_key(tape)
        while True:
            yield from tape.skip_space()
            opening = yield from tape.accept("{", "[", *("(" if self.is_python else ""))
            if not opening:
                yield from self._pass_scalar(tape)
                return
            closer = _CLOSING[opening]
            tape.argue("{" if opening == "{" else "[")
            yield from tape.skip_space()
            if (yield from tape.accept(closer)):
                tape.argue("}" if closer == "}" else "]")
                return
            closers.append(closer)
            if closer == "}":
                yield from self._pass_key(tape)

    def _pass_key(self, tape: Tape) -> Script[None]:
        yield from tape.skip_space()
        if not (yield from self._pass_text(tape)):
            word, marker = yield from tape.until(":", *",{}[]()")
            if marker != ":":
                tape.unread(len(marker))
                yield from tape.refuse()
            tape.argue(json.dumps(word.strip(), ensure_ascii=False) + ": ")
            return
        yield from tape.skip_space()
        yield from tape.expect(":")
        tape.argue(": ")

    def _pass_scalar(self, tape: Tape) -> Script[None]:
        if (yield from self._pass_text(tape)):
            return
        word, marker = yield from tape.until(*(",)]}" if self.is_python else ",{}[]"))
        tape.unread(len(marker))
        if not marker or not word.strip():
            yield from tape.refuse()
        tape.argue(self._scalar(word.strip()))

    def _scalar(self, word: str) -> str:
        """JSON where it means something, a string where it does not."""
        if _NUMBER.fullmatch(word):
            return word
        found = _WORDS.get(word) or (_PYTHON_WORDS.get(word) if self.is_python else None)
        if found is None and self.is_python:
            found = _number(word)
        return json.dumps(word, ensure_ascii=False) if found is None else found

    # -- text ----------------------------------------------------------------------------------

    def _pass_text(self, tape: Tape) -> Script[bool]:
        """False: what comes next is none."""
        prefix = (yield from tape.accept(*_PREFIXES)) if self.is_python else ""
        tape.unread(min(len(prefix), 1))
        quote = yield from self._quote(tape)
        if not quote:
            return False
        tape.argue('"')
        while quote:
            has_escapes = quote != self.mark and prefix[:1] not in tuple("rR")
            yield from self._pass_inside(tape, quote, has_escapes)
            quote, prefix = "", ""
            if self.is_python:  # "a" "b" is one text
                yield from tape.skip_space()
                if not (yield from tape.peek()):
                    raise Cut
                quote = yield from self._quote(tape)
        tape.argue('"')
        return True

    def _quote(self, tape: Tape) -> Script[str]:
        if self.mark and (yield from tape.accept(self.mark)):
            return self.mark
        char = yield from tape.peek()
        if char != '"' and not (self.is_python and char == "'"):
            return ""
        if self.is_python and (yield from tape.accept(char * 3)):
            return char * 3
        return (yield from tape.accept(char))

    def _pass_inside(self, tape: Tape, quote: str, has_escapes: bool) -> Script[None]:
        stops = (quote, "\\") if has_escapes else (quote,)

        def say(text: str) -> None:
            tape.argue(_escaped(text))

        while True:
            marker = yield from tape.pass_until(stops, say, is_open=True)
            if not marker:
                raise Cut
            if marker == quote:
                return
            yield from self._pass_escape(tape)

    def _pass_escape(self, tape: Tape) -> Script[None]:
        char = yield from tape.next()
        if not char:
            raise Cut
        simple = _SIMPLE.get(char) or (_PYTHON_SIMPLE.get(char) if self.is_python else None)
        if simple is not None:
            tape.argue(simple)
        elif char == "u" or (self.is_python and char in _CODES):
            yield from self._pass_code(tape, char)
        elif self.is_python and char in "01234567":
            digits = char + (yield from _digits(tape, "01234567", 2))
            tape.argue(_escaped(chr(int(digits, 8))))
        elif self.is_python and char == "N" and (yield from tape.accept("{")):
            name, _ = yield from tape.until("}")
            tape.argue(_escaped(_named(name)))
        elif char == "/" and not self.is_python:
            tape.argue("/")
        else:
            tape.argue("\\\\" + _escaped(char))

    def _pass_code(self, tape: Tape, char: str) -> Script[None]:
        digits = yield from _digits(tape, "0123456789abcdefABCDEF", _CODES[char])
        if len(digits) < _CODES[char] or int(digits, 16) > 0x10FFFF:
            tape.argue(f"\\\\{char}{digits}")
        elif char == "u":
            tape.argue(f"\\u{digits}")  # perhaps half of a pair
        else:
            tape.argue(_escaped(chr(int(digits, 16))))


def _digits(tape: Tape, allowed: str, most: int) -> Script[str]:
    digits = ""
    while len(digits) < most:
        char = yield from tape.peek()
        if not char:
            raise Cut
        if char not in allowed:
            break
        digits += yield from tape.next()
    return digits


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _named(name: str) -> str:
    try:
        return unicodedata.lookup(name)
    except KeyError:
        return f"\\N{{{name}}}"


def _number(word: str) -> str | None:
    """A number as Python writes it: 1_000, 0x1f, .5."""
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    is_number = isinstance(value, int) or (isinstance(value, float) and isfinite(value))
    return json.dumps(value) if is_number else None
