"""Calls whose arguments stand one by one between tags, strings without quotes.

Qwen3-Coder, MiniMax and GLM, in this order:

    <tool_call><function=weather><parameter=city>Oslo</parameter></function></tool_call>
    <minimax:tool_call><invoke name="weather"><parameter name="city">Oslo</parameter></invoke></minimax:tool_call>
    <tool_call>weather<arg_key>city</arg_key><arg_value>Oslo</arg_value></tool_call>

Arguments become JSON by the types that the tool's schema gives them.
"""

# ruff: noqa: RUF001 - markers as the models write them

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from backends.serving.tools.arguments import (
    Property,
    bound_properties,
    json_rule,
    properties,
    text_rules,
)
from backends.serving.tools.calls import Plain, Tools, Write, call_rules, literal
from backends.serving.tools.tape import Cut, JsonScanner, NoCall, Script, Tape

_DSML = "｜DSML｜"  # part of every tag of DeepSeek's since V3.2
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


@dataclass(frozen=True, slots=True)
class TaggedCalls(Plain):
    """The tags of one family."""

    section: tuple[str, str]
    call: tuple[str, str]  # an empty end: the section is the call
    name_ends: tuple[str, ...]
    key: tuple[str, str]
    value_begin: str  # between key and value
    value_end: str
    is_padded: bool = False  # a line break on both sides of a value is not part of it
    space: str = ""  # between tags

    @property
    def starts(self) -> tuple[str, ...]:
        # Some models leave the outer tag out.
        return tuple(filter(None, (self.section[0], self.call[0])))

    @property
    def markers(self) -> tuple[str, ...]:
        parts = (*self.section, *self.call, self.key[0], self.value_end, self.value_begin)
        whole = tuple(part for part in parts if part.startswith("<") and part.endswith(">"))
        return (*whole, _DSML) if self.has_notes else whole

    def read(self, tape: Tape, tools: Tools) -> Script[None]:
        """As CallFormat says."""
        yield from tape.skip_space()
        if self.call[0]:
            yield from tape.accept(self.call[0])
        while True:
            yield from self._read_call(tape, tools)
            yield from tape.skip_space()
            if not self.call[0] or not (yield from tape.accept(self.call[0])):
                break
        yield from tape.accept(self.section[1])

    def _read_call(self, tape: Tape, tools: Tools) -> Script[None]:
        name, marker = yield from tape.until(*self.name_ends)
        if not marker:
            raise Cut
        name = name.strip()
        if not name or any(char in name for char in '<>{}\n"'):
            raise NoCall
        if not marker.isspace() and marker in (self.key[0], self.section[1], self.call[1]):
            tape.unread(len(marker))
        tape.begin_call(name)
        known = {
            given.name: given for tool in tools if tool.name == name for given in properties(tool)
        }
        tape.argue("{")
        separator = ""
        end = self.call[1] or self.section[1]
        while True:
            yield from tape.skip_space()
            found = yield from tape.accept(self.key[0], end)
            if found != self.key[0]:
                if not found and tape.is_over:
                    raise Cut
                break
            yield from self._read_argument(tape, known, separator)
            separator = ", "
        tape.argue("}")
        tape.end_call()

    def _read_argument(
        self, tape: Tape, known: dict[str, Property], separator: str
    ) -> Script[None]:
        key, marker = yield from tape.until(self.key[1])
        note = ""
        if marker and self.value_begin:
            yield from tape.skip_space()
            note, marker = yield from tape.until(self.value_begin)
        if not marker:
            raise Cut
        key = key.strip()
        given = known.get(key)
        if self.is_padded:
            yield from tape.accept("\n")
        ends = (f"\n{self.value_end}", self.value_end) if self.is_padded else (self.value_end,)
        tape.argue(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
        if 'string="true"' in note or (given is not None and given.is_text):
            tape.argue('"')
            marker = yield from tape.pass_until(
                ends, lambda text: tape.argue(_escaped(text)), is_open=True
            )
            if not marker:
                raise Cut
            tape.argue('"')
            return
        tape.argue(_guessed((yield from _until(tape, ends, self.call[1] or self.section[1]))))

    def rules(self, tools: Tools, write: Write) -> str:
        """As CallFormat says."""
        calls: list[str] = []
        lines: list[str] = []
        for index, tool in enumerate(tools):
            terms = []
            for place, given in enumerate(bound_properties(tool)):
                if tool.is_strict and not self._can_name(given.name):
                    raise given.refused("its name cannot be told from the tags around it")
                rule = f"value_{index}_{place}"
                lines += self._value_rules(rule, given, write)
                key = f"{self._key(given.name, given.is_text, write)} {rule}"
                terms.append(key if given.is_required else f"({key})?")
            calls.append(" ".join(self._call(tool.name, terms, write)))
        if self.call[0]:
            head, tail = write(self.section[0]), write(self.section[1])
            space = literal(self.space) if self.space else ""
            rules = call_rules(
                calls, head=f"{head} {space}", separator=space, tail=f"{space} {tail}"
            )
        else:
            rules = call_rules(calls, separator='"\\n"')
        return "\n".join([*rules, *lines])

    def _call(self, name: str, terms: Sequence[str], write: Write) -> list[str]:
        space = literal(self.space) if self.space else ""
        if not self.call[0]:
            return [write(self.section[0]), literal(name + "\n"), *terms, write(self.section[1])]
        head = self.call[0] + name + self.name_ends[0]
        return [write(head), space, *terms, write(self.call[1])]

    def _can_name(self, name: str) -> bool:
        return bool(name) and name == name.strip() and not set(name) & set('<>"\n')

    def _key(self, name: str, is_text: bool, write: Write) -> str:
        if self.key[0].endswith(">"):
            begin = self.value_begin
            return f"{write(self.key[0])} {literal(name)} {write(self.key[1])} {write(begin)}"
        note = self.value_begin
        if self.has_notes:
            note = f' string="{"true" if is_text else "false"}"' + note
        pad = "\n" if self.is_padded else ""
        return write(self.key[0] + name + self.key[1] + note + pad)

    @property
    def has_notes(self) -> bool:
        """DeepSeek writes with each argument whether it is a string."""
        return _DSML in self.section[0]

    def _value_rules(self, rule: str, given: Property, write: Write) -> list[str]:
        end = ("\n" if self.is_padded else "") + self.value_end
        after = literal(self.space) if self.space else ""
        closing = write(end)
        if given.is_text:
            return [
                f"{rule}: text_{rule} {after}",
                *text_rules(f"text_{rule}", given, self.value_end, closing),
            ]
        return [f"{rule}: json_{rule} {closing} {after}", json_rule(f"json_{rule}", given)]


def _until(tape: Tape, ends: Sequence[str], call_end: str) -> Script[str]:
    """A value up to one of `ends`, or to a later one where that makes it JSON: texts inside may hold
    what ends it. Raises Cut."""
    place = tape.mark()
    value, marker = yield from tape.until(*ends)
    while marker and _is_open(value):
        more, next_marker = yield from tape.until(*ends)
        value += marker + more
        marker = next_marker
    if not marker and call_end in value:  # it was never JSON
        tape.go_back(place)
        value, marker = yield from tape.until(*ends)
    tape.forget()
    if not marker:
        raise Cut
    return value


def _is_open(value: str) -> bool:
    """Whether this is JSON up to the middle of a text."""
    if not value.lstrip().startswith(("{", "[", '"')):
        return False
    scanner = JsonScanner()
    return scanner.scan(value) is None and scanner.is_in_text


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _guessed(value: str) -> str:
    """JSON where it is JSON, a string where it is not."""
    text = value.strip()
    text = _PYTHON_WORDS.get(text, text)
    try:
        json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return json.dumps(value, ensure_ascii=False)
    return text


def _no_constant(word: str) -> None:
    raise ValueError(word)
