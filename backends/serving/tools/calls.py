"""What all ways of writing calls have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from backends.serving.tools.bare import in_regex
from backends.serving.tools.tape import Script, Tape, call_id


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `schema` is ready to be followed."""

    name: str
    schema: Mapping[str, Any]
    is_strict: bool = False


Tools = Sequence[Tool]
Write = Callable[[str], str]  # a marker as a term of Lark: a control token, or its text


class CallFormat(Protocol):
    """One way in which models write calls."""

    @property
    def starts(self) -> tuple[str, ...]:
        """What begins calls in the middle of an answer's text."""
        ...

    @property
    def markers(self) -> tuple[str, ...]:
        """All that may be a control token."""
        ...

    @property
    def may_be_bare(self) -> bool:
        """Whether a whole answer may be calls, with nothing to mark them."""
        ...

    def read(self, tape: Tape, tools: Tools) -> Script[None]:
        """Read the calls behind one of `starts`. Raises NoCall or Cut."""
        ...

    def rules(self, tools: Tools, write: Write) -> str:
        """Rules of Lark: `call_list` is one call or more, `single_call` exactly one."""
        ...

    def call_id(self, name: str, index: int) -> str:
        """An id as the model's template wants it."""
        ...


class Plain:
    """What most formats do."""

    may_be_bare = False

    def call_id(self, name: str, index: int) -> str:
        """A fresh id."""
        return call_id()


def literal(text: str) -> str:
    """Text as a term of Lark."""
    return json.dumps(text, ensure_ascii=False)


def embedded(schema: Mapping[str, Any]) -> str:
    """A schema as a term of Lark."""
    return "%json " + json.dumps(schema, ensure_ascii=False)


def text_until(rule: str, end: str) -> list[str]:
    """`rule`: any text up to and with `end`, which is an expression of Lark as Write gives it."""
    before, control, after = end.partition("<[")
    if not control:
        return [f"{rule}[lazy]: /(?s:.*)/ {end}"]
    text = json.loads(before) if before.strip() else ""
    # A control token ends the text before it, so that text must be all that comes before.
    return [f"{rule}: /(?s:.*){in_regex(text)}/ {control}{after}"]


def call_rules(
    calls: Iterable[str], *, head: str = "", separator: str = "", tail: str = ""
) -> list[str]:
    """The rules above the single calls, each of which is an expression of Lark."""
    calls = list(calls)
    return [
        f"call_list: {head} call ({separator} call)* {tail}",
        f"single_call: {head} call {tail}",
        "call: " + " | ".join(f"call_{index}" for index in range(len(calls))),
        *(f"call_{index}: {expression}" for index, expression in enumerate(calls)),
    ]


def argument_rules(tools: Tools) -> list[str]:
    """`args_0`, `args_1` …: the arguments of each tool as JSON."""
    return [f"args_{index}: {embedded(tool.schema)}" for index, tool in enumerate(tools)]


def in_order(terms: Sequence[tuple[str, bool]], separator: str) -> str:
    """An expression of Lark: terms in their order, those not required (the last ones) left out or
    not, with `separator` between two."""
    needed = [term for term, is_required in terms if is_required]
    others = [term for term, is_required in terms if not is_required]
    if needed:
        return " ".join(
            [f" {separator} ".join(needed), *(f"({separator} {term})?" for term in others)]
        )
    if not others:
        return '""'
    tails = [
        " ".join([term, *(f"({separator} {later})?" for later in others[index + 1 :])])
        for index, term in enumerate(others)
    ]
    return f"({' | '.join(tails)})?"
