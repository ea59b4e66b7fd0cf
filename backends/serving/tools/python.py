"""Calls as Python writes them, by Llama 4, LFM2 and Gemma 3:

[weather(city="Oslo"), time(zone="CET", day=3)]
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from backends.serving.tools.arguments import bound_properties, json_rule
from backends.serving.tools.calls import Plain, Tools, Write, call_rules, in_order, literal
from backends.serving.tools.tape import NoCall, Script, Tape
from backends.serving.tools.values import Notation

_PYTHON = Notation(is_python=True)
_SIGNS = "()[]{},;='\"<>\n"  # no part of a name
_NAME = re.compile(r"[^\s()\[\]{},;='\"<>]+")
_ARGUMENT = re.compile(r"[^\s()\[\]{},;='\"<>]+(?: +[^\s()\[\]{},;='\"<>]+)*")


@dataclass(frozen=True, slots=True)
class PythonCalls(Plain):
    """A list of calls between two markers, or a whole answer where `begin` is empty."""

    begin: str = ""
    end: str = ""

    @property
    def may_be_bare(self) -> bool:  # type: ignore[override]  # it depends on the model here
        return not self.begin

    @property
    def starts(self) -> tuple[str, ...]:
        return (self.begin,) if self.begin else ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.begin, self.end) if self.begin else ()

    def read(self, tape: Tape, tools: Tools) -> Script[None]:
        """As CallFormat says."""
        if not self.begin:
            yield from tape.skip_space()
            opening = yield from tape.accept(*(f"[{tool.name}(" for tool in tools))
            if not opening:
                raise NoCall
            tape.unread(len(opening))
        yield from read_python(tape, self.end)

    def rules(self, tools: Tools, write: Write) -> str:
        """As CallFormat says; the values are JSON, which `read` knows too."""
        calls, values = [], []
        for index, tool in enumerate(tools):
            terms = []
            for place, given in enumerate(bound_properties(tool)):
                if tool.is_strict and not _ARGUMENT.fullmatch(given.name):
                    raise given.refused("its name is none in Python")
                rule = f"value_{index}_{place}"
                values.append(json_rule(rule, given))
                terms.append((f"{literal(given.name + '=')} {rule}", given.is_required))
            arguments = in_order(terms, '", "')
            calls.append(f'{literal(tool.name + "(")} {arguments} ")"')
        head, tail = (write(self.begin), write(self.end)) if self.begin else ("", "")
        lines = call_rules(calls, head=f'{head} "["', separator='", "', tail=f'"]" {tail}')
        return "\n".join([*lines, *values])


def read_python(tape: Tape, end: str) -> Script[None]:
    """One call, or a list of them, and `end` behind it if there is one."""
    yield from tape.skip_space()
    is_list = yield from tape.accept("[")
    while True:
        yield from _read_call(tape)
        yield from tape.skip_space()
        if not (yield from tape.accept(",")):
            break
        yield from tape.skip_space()
        if (yield from tape.peek()) == "]":
            break
    if is_list:
        yield from tape.expect("]")
    if end:
        yield from tape.skip_space()
        yield from tape.accept(end)


def _read_call(tape: Tape) -> Script[None]:
    name = yield from _until(tape, "(")
    name = name.strip().removesuffix(".call")  # Llama 3: brave_search.call(…)
    if not _NAME.fullmatch(name):
        raise NoCall
    yield from tape.skip_space()
    if (yield from tape.accept(")")):
        tape.call(name, "{}")
        return
    argument = yield from _argument(tape)
    tape.begin_call(name)
    tape.argue("{")
    while True:
        tape.argue(json.dumps(argument, ensure_ascii=False) + ": ")
        yield from _PYTHON.pass_value(tape)
        yield from tape.skip_space()
        if (yield from tape.accept(",")):
            yield from tape.skip_space()
            if not (yield from tape.accept(")")):
                argument = yield from _argument(tape)
                tape.argue(", ")
                continue
        else:
            yield from tape.expect(")")
        break
    tape.argue("}")
    tape.end_call()


def _argument(tape: Tape) -> Script[str]:
    name = yield from _until(tape, "=")
    if not _ARGUMENT.fullmatch(name.strip()) or (yield from tape.accept("=")):
        raise NoCall
    return name.strip()


def _until(tape: Tape, sign: str) -> Script[str]:
    """The name up to `sign`."""
    name, marker = yield from tape.until(*_SIGNS)
    if marker != sign:
        tape.unread(len(marker))
        yield from tape.refuse()
    return name
