"""Calls as JSON objects with a name and arguments, one by one or in a list.

Hermes, Qwen and Granite 4 put each into tags, Llama 3 writes them bare, Granite 3, Phi and older Mistral
models write a list behind a marker:

    <tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>
    {"name": "weather", "parameters": {"city": "Oslo"}}
    <|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from backends.serving.tools.calls import Plain, Tools, Write, argument_rules, call_rules, literal
from backends.serving.tools.python import read_python
from backends.serving.tools.tape import NoCall, Script, Tape

_NAMES = ("name", "tool_name", "function_name")
_ARGUMENTS = ("arguments", "parameters", "args")
_KEYS = (*_NAMES, *_ARGUMENTS, "function", "type", "id")


@dataclass(frozen=True, slots=True)
class ObjectCalls(Plain):
    """Objects between two markers."""

    begin: str
    end: str = ""
    is_list: bool = False
    arguments_key: str = "arguments"
    more_starts: tuple[str, ...] = ()  # other spellings of `begin` that models fall into

    @property
    def starts(self) -> tuple[str, ...]:
        return (self.begin, *self.more_starts)

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(filter(None, (*self.starts, self.end)))

    def read(self, tape: Tape, tools: Tools) -> Script[None]:
        """As CallFormat says."""
        yield from read_objects(tape)
        yield from tape.skip_space()
        if self.end:
            yield from tape.accept(self.end)

    def rules(self, tools: Tools, write: Write) -> str:
        """As CallFormat says."""
        begin = write(self.begin)
        end = write(self.end) if self.end else ""
        if self.is_list:
            calls = [object_rule(tool.name, index, self) for index, tool in enumerate(tools)]
            lines = call_rules(calls, head=f'{begin} "["', separator='", "', tail=f'"]" {end}')
        else:
            calls = [
                f'{begin} "\\n" {object_rule(tool.name, index, self)} "\\n" {end}'
                for index, tool in enumerate(tools)
            ]
            lines = call_rules(calls, separator='"\\n"')
        return "\n".join([*lines, *argument_rules(tools)])


def object_rule(name: str, index: int, style: ObjectCalls | BareCalls) -> str:
    """One call as an object, an expression of Lark."""
    head = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{style.arguments_key}": '
    return f'{literal(head)} args_{index} "}}"'


@dataclass(frozen=True, slots=True)
class BareCalls(Plain):
    """Llama 3: an answer that is nothing but a call, or what follows <|python_tag|>."""

    begin: str = "<|python_tag|>"
    arguments_key: str = "parameters"
    may_be_bare = True

    @property
    def starts(self) -> tuple[str, ...]:
        return (self.begin,)

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.begin,)

    def read(self, tape: Tape, tools: Tools) -> Script[None]:
        """As CallFormat says. Objects follow each other behind a semicolon or white space."""
        yield from tape.skip_space()
        if (yield from tape.peek()) not in ("{", "["):
            yield from read_python(tape, "")
            return
        while True:
            yield from read_objects(tape, {tool.name for tool in tools})
            yield from tape.skip_space()
            yield from tape.accept(";")
            yield from tape.skip_space()
            if (yield from tape.peek()) != "{":
                return

    def rules(self, tools: Tools, write: Write) -> str:
        """As CallFormat says."""
        calls = [object_rule(tool.name, index, self) for index, tool in enumerate(tools)]
        return "\n".join([*call_rules(calls, separator='"; "'), *argument_rules(tools)])


def read_objects(tape: Tape, known: set[str] | None = None) -> Script[None]:
    """One call, or a list of them. With `known`, no other name makes a call."""
    yield from tape.skip_space()
    if not (yield from tape.accept("[")):
        yield from _read_object(tape, known)
        return
    while True:
        yield from _read_object(tape, known)
        yield from tape.skip_space()
        if (yield from tape.expect(",", "]")) == "]":
            return
        yield from tape.skip_space()


def _read_object(tape: Tape, known: set[str] | None) -> Script[None]:
    yield from tape.skip_space()
    yield from tape.expect("{")
    name, arguments, has_begun = "", "{}", False
    while True:
        yield from tape.skip_space()
        if (yield from tape.accept("}")):
            break
        key = yield from _string(tape)
        if known is not None and key not in _KEYS:
            raise NoCall
        yield from tape.skip_space()
        yield from tape.expect(":")
        yield from tape.skip_space()
        char = yield from tape.peek()
        if key == "function" and char == "{":
            yield from _read_object(tape, known)
            has_begun = True
        elif key in _NAMES or (key == "function" and char == '"'):
            name = yield from _string(tape)
            if known is not None and name not in known:
                raise NoCall
        elif key in _ARGUMENTS and char == "{" and name:
            tape.begin_call(name)
            has_begun = True
            if not (yield from tape.pass_json(tape.argue)):
                yield from tape.refuse()
            tape.end_call()
        else:
            value = yield from _value(tape)
            if key in _ARGUMENTS:
                arguments = _object_text(value)
        yield from tape.skip_space()
        if (yield from tape.accept(",")):
            continue
        if not (yield from tape.accept("}")) and not has_begun:
            yield from tape.refuse()
        break
    if not has_begun:
        if not name:
            raise NoCall
        tape.call(name, arguments)


def _value(tape: Tape) -> Script[str]:
    value = yield from tape.json()
    if value is None:
        yield from tape.refuse()
    assert value is not None
    return value


def _string(tape: Tape) -> Script[str]:
    if (yield from tape.peek()) != '"':
        yield from tape.refuse()
    try:
        text = json.loads((yield from _value(tape)))
    except ValueError:
        raise NoCall from None
    if not isinstance(text, str):
        raise NoCall
    return text


def _object_text(value: str) -> str:
    """Arguments that are not simply an object: null, or an object inside a string."""
    try:
        read = json.loads(value)
        if read is None:
            return "{}"
        if isinstance(read, str):
            value, read = read, json.loads(read)
    except (ValueError, RecursionError):
        raise NoCall from None
    if not isinstance(read, dict):
        raise NoCall
    return value
