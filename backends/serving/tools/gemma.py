"""Calls in Gemma's own notation, whose strings stand between marks of their own:

<|tool_call>call:weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|>
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from backends.serving.tools.arguments import Property, bound_properties, json_rule, text_rules
from backends.serving.tools.calls import Plain, Tools, Write, call_rules, in_order, literal
from backends.serving.tools.tape import NoCall, Script, Tape
from backends.serving.tools.values import Notation

_BARE_KEY = re.compile(r"[^\s,:{}\[\]()\"<>|]+(?: +[^\s,:{}\[\]()\"<>|]+)*")


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
        yield from tape.skip_space()
        yield from tape.expect("call:")
        name, marker = yield from tape.until("{", "\n", self.end)
        tape.unread(len(marker))
        if marker != "{":
            yield from tape.refuse()
        name = name.strip()
        if not name or any(map(str.isspace, name)):
            raise NoCall
        tape.begin_call(name)
        yield from Notation(mark=self.quote).pass_value(tape)
        tape.end_call()
        yield from tape.skip_space()
        yield from tape.accept(self.end)

    def rules(self, tools: Tools, write: Write) -> str:
        """As CallFormat says. Text is followed as Gemma writes it, anything else as JSON."""
        calls, lines = [], []
        for index, tool in enumerate(tools):
            terms = []
            for place, given in enumerate(bound_properties(tool)):
                rule = f"value_{index}_{place}"
                lines += self._value_rules(rule, given, write)
                terms.append((f"{_key(given.name)} {rule}", given.is_required))
            head = literal(f"call:{tool.name}{{")
            arguments = in_order(terms, '","')
            calls.append(f'{write(self.begin)} {head} {arguments} "}}" {write(self.end)}')
        return "\n".join([*call_rules(calls), *lines])

    def _value_rules(self, rule: str, given: Property, write: Write) -> list[str]:
        if not given.is_text:
            return [json_rule(rule, given)]
        quote = write(self.quote)
        return [
            f"{rule}: {quote} text_{rule}",
            *text_rules(f"text_{rule}", given, self.quote, quote),
        ]


def _key(name: str) -> str:
    return literal(f"{name if _BARE_KEY.fullmatch(name) else literal(name)}:")
