"""Calls as Python writes them, by Llama 4, LFM2 and Gemma 3:

    [weather(city="Oslo"), time(zone="CET", day=3)]

A call is known when its text is whole.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass

from backends.serving.tools.calls import (
    Plain,
    Tools,
    Write,
    call_rules,
    embedded,
    in_order,
    literal,
    properties,
)
from backends.serving.tools.tape import Cut, NoCall, Script, Tape

_WORDS = {"true": True, "false": False, "null": None}  # JSON's, which models mix in


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
            for place, given in enumerate(properties(tool)):
                rule = f"value_{index}_{place}"
                values.append(f"{rule}: {embedded(given.schema)}")
                terms.append((f"{literal(given.name + '=')} {rule}", given.is_required))
            arguments = in_order(terms, '", "')
            calls.append(f'{literal(tool.name + "(")} {arguments} ")"')
        head, tail = (write(self.begin), write(self.end)) if self.begin else ("", "")
        lines = call_rules(calls, head=f'{head} "["', separator='", "', tail=f'"]" {tail}')
        return "\n".join([*lines, *values])


def read_python(tape: Tape, end: str) -> Script[None]:
    """Calls up to `end`, or to the end of the answer."""
    if end:
        text, marker = yield from tape.until(end)
        is_whole = bool(marker)
    else:
        text, is_whole = (yield from tape.until_over()), False
    try:
        calls = [_call(node) for node in _nodes(text.strip())]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise (NoCall if is_whole or not end else Cut) from None
    for name, arguments in calls:
        tape.call(name, arguments)


def _nodes(text: str) -> list[ast.expr]:
    body = ast.parse(text, mode="eval").body
    return body.elts if isinstance(body, ast.List | ast.Tuple) else [body]


def _call(node: ast.expr) -> tuple[str, str]:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError
    name = node.func
    if isinstance(name, ast.Attribute) and name.attr == "call":  # Llama 3: brave_search.call(…)
        name = name.value
    arguments = {str(given.arg): _value(given.value) for given in node.keywords if given.arg}
    return ast.unparse(name), json.dumps(arguments, ensure_ascii=False)


def _value(node: ast.expr) -> object:
    match node:
        case ast.Name(id=word) if word in _WORDS:
            return _WORDS[word]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {
                str(ast.literal_eval(key)): _value(value)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case _:
            value = ast.literal_eval(node)
            json.dumps(value)  # a set or bytes is a ValueError to the caller
            return value
