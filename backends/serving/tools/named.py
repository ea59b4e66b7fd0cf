"""Calls as a name, a separator and arguments in JSON, each part behind a marker of its own.

Mistral, DeepSeek and Kimi, in this order:

    [TOOL_CALLS]weather[ARGS]{"city": "Oslo"}
    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>
    <|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{…}<|tool_call_end|>…
"""

# ruff: noqa: RUF002 - markers as the models write them

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass

from backends.serving.tools.calls import Plain, Tools, Write, argument_rules, call_rules, literal
from backends.serving.tools.objects import read_objects
from backends.serving.tools.tape import Cut, NoCall, Script, Tape

_NUMBERED = re.compile(r"^(?:functions\.)?(.+?)(?::\d+)?$", re.DOTALL)
_NAME = re.compile(r"[^\s{}<>|]+")


def _begin(tape: Tape, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise NoCall
    tape.begin_call(name)


def _arguments(tape: Tape) -> Script[None]:
    if not (yield from tape.pass_json(tape.argue)):
        raise Cut
    tape.end_call()


@dataclass(frozen=True, slots=True)
class MistralCalls(Plain):
    """Since 2024-11 a marker before each name; before that, a list of objects."""

    is_list: bool = False

    starts = ("[TOOL_CALLS]",)
    markers = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")

    def read(self, tape: Tape, tools: Tools) -> Script[None]:
        """As CallFormat says, in whichever of the two forms."""
        yield from tape.skip_space()
        if (yield from tape.peek()) in ("[", "{"):
            yield from read_objects(tape)
            return
        name, marker = yield from tape.until("[CALL_ID]", "[ARGS]", "{")
        if not marker:
            raise Cut
        if marker == "{":
            tape.unread(1)
        elif marker == "[CALL_ID]":
            yield from tape.until("[ARGS]")
        _begin(tape, name.strip())
        yield from tape.skip_space()
        yield from _arguments(tape)

    def rules(self, tools: Tools, write: Write) -> str:
        """As CallFormat says."""
        start = write("[TOOL_CALLS]")
        if self.is_list:
            heads = [f'{{"name": {literal(tool.name)}, "arguments": ' for tool in tools]
            calls = [f'{literal(head)} args_{index} "}}"' for index, head in enumerate(heads)]
            lines = call_rules(calls, head=f'{start} "["', separator='", "', tail='"]"')
        else:
            args = write("[ARGS]")
            calls = [
                f"{start} {literal(tool.name)} {args} args_{index}"
                for index, tool in enumerate(tools)
            ]
            lines = call_rules(calls)
        return "\n".join([*lines, *argument_rules(tools)])

    def call_id(self, name: str, index: int) -> str:
        """Mistral's templates refuse ids of any other form."""
        return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


@dataclass(frozen=True, slots=True)
class SectionCalls(Plain):
    """A section of calls; in each, a separator between head and arguments."""

    section: tuple[str, str]
    call: tuple[str, str]
    separator: str
    is_fenced: bool = (
        False  # DeepSeek V3 and R1: the name comes behind the separator, JSON in a fence
    )
    is_numbered: bool = False  # Kimi: functions.NAME:INDEX

    @property
    def starts(self) -> tuple[str, ...]:
        return (self.section[0], self.call[0])

    @property
    def markers(self) -> tuple[str, ...]:
        return (*self.section, *self.call, self.separator)

    def read(self, tape: Tape, tools: Tools) -> Script[None]:
        """As CallFormat says."""
        yield from tape.skip_space()
        yield from tape.accept(self.call[0])
        while True:
            yield from self._read_call(tape)
            yield from tape.skip_space()
            if not (yield from tape.accept(self.call[0])):
                break
        yield from tape.accept(self.section[1])

    def _read_call(self, tape: Tape) -> Script[None]:
        head, marker = yield from tape.until(self.separator)
        if not marker:
            raise Cut
        yield from tape.skip_space()
        if (yield from tape.peek()) != "{":
            head, marker = yield from tape.until("{")
            if not marker:
                raise Cut
            tape.unread(1)
            head = head.strip().removesuffix("```json").removesuffix("```")
        _begin(tape, self._name(head.strip()))
        yield from _arguments(tape)
        yield from tape.until(self.call[1])

    def _name(self, head: str) -> str:
        found = _NUMBERED.match(head) if self.is_numbered else None
        return found[1] if found else head

    def rules(self, tools: Tools, write: Write) -> str:
        """As CallFormat says."""
        begin, end, separator = write(self.call[0]), write(self.call[1]), write(self.separator)
        calls = []
        for index, tool in enumerate(tools):
            if self.is_fenced:
                fence = literal(f"{tool.name}\n```json\n")
                body = f'"function" {separator} {fence} args_{index} "\\n```"'
            else:
                name = f"functions.{tool.name}:" if self.is_numbered else tool.name
                number = "/[0-9]{1,2}/" if self.is_numbered else ""
                body = f"{literal(name)} {number} {separator} args_{index}"
            calls.append(f"{begin} {body} {end}")
        lines = call_rules(calls, head=write(self.section[0]), tail=write(self.section[1]))
        return "\n".join([*lines, *argument_rules(tools)])

    def call_id(self, name: str, index: int) -> str:
        """Kimi's template prints the id, and the model knows only ids of its own form."""
        return f"functions.{name}:{index}" if self.is_numbered else Plain.call_id(self, name, index)
