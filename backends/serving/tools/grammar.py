"""What an answer must be where a call or a form is asked for, as a grammar.

Around content and calls stand what the model's dialect has there: reasoning, channels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from backends.serving.tools import harmony
from backends.serving.tools.calls import CallFormat, Tools, Write, literal, text_until
from backends.serving.tools.dialect import Dialect


def writer(controls: Mapping[str, int]) -> Write:
    """How to write markers in Lark, of which `controls` are control tokens."""
    if not controls:
        return literal
    pattern = re.compile("(" + "|".join(map(re.escape, controls)) + ")")
    return partial(_written, pattern, controls)


def _written(pattern: re.Pattern[str], controls: Mapping[str, int], text: str) -> str:
    parts = [part for part in pattern.split(text) if part]
    terms = [f"<[{controls[part]}]>" if part in controls else literal(part) for part in parts]
    return " ".join(terms) or '""'


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer must be: content by a grammar of Lark, calls, or either of them."""

    content: str | None = None
    tools: Tools = ()
    is_single: bool = False  # no more than one call
    may_talk: bool = False  # free text may stand before and after calls, or instead of them


def answer_rules(dialect: Dialect, wanted: Wanted, write: Write, *, prompt: str | None) -> str:
    """The grammar of such an answer to `prompt`, None where nothing but content is asked for."""
    lines = [f"start: {_thoughts(dialect, write, prompt)} ({_kinds(dialect, wanted)})"]
    lines += ["ANYTHING: /(?s:.*)/", *_thought_rules(dialect, write, prompt)]
    if wanted.tools:
        assert dialect.calls is not None
        lines += _call_rules(dialect.calls, wanted, write)
    if wanted.content is not None:
        is_channel = dialect.is_harmony and prompt is not None
        lines.append(f"said: {'final' if is_channel else ''} @content")
    if dialect.is_harmony:
        lines.append(f'final: {write(harmony.CHANNEL)} "final" {write(harmony.MESSAGE)}')
    grammars = [{"name": "answer", "lark_grammar": "\n".join(lines)}]
    if wanted.content is not None:
        grammars.append({"name": "content", "lark_grammar": wanted.content})
    return json.dumps({"grammars": grammars})


def _kinds(dialect: Dialect, wanted: Wanted) -> str:
    kinds = ["said"] if wanted.content is not None else []
    if wanted.tools:
        calls = "single_call" if wanted.is_single else "call_list"
        kinds.append(calls)
        if wanted.may_talk and dialect.is_harmony:
            kinds = [calls, "final ANYTHING"]
        elif wanted.may_talk:
            is_bare = dialect.calls is not None and dialect.calls.may_be_bare
            kinds = [calls, "SPEECH"] if is_bare else [f"({calls})? ANYTHING"]
    return " | ".join(kinds)


def _call_rules(calls: CallFormat, wanted: Wanted, write: Write) -> list[str]:
    rules = calls.rules(wanted.tools, write)
    if not wanted.may_talk:
        return [rules]
    if calls.may_be_bare:  # what begins as a call is one
        return [rules, r"SPEECH: /([^{\[\s](?s:.*))?/"]
    if not calls.starts:
        return [rules]
    # Before what begins a call there may be anything, and behind it there must be a call.
    start = calls.starts[0]
    return [
        calls.rules(wanted.tools, lambda text: "lead" if text == start else write(text)),
        *text_until("lead", write(start)),
    ]


def _thoughts(dialect: Dialect, write: Write, prompt: str | None) -> str:
    if prompt is None:
        return ""
    if dialect.is_harmony:
        return "thought*"
    if dialect.thinking is None or dialect.has_thought(prompt):
        return ""
    return (
        "thought" if dialect.is_thinking(prompt) else f"({write(dialect.thinking.begin)} thought)?"
    )


def _thought_rules(dialect: Dialect, write: Write, prompt: str | None) -> list[str]:
    if prompt is None:
        return []
    if dialect.is_harmony:
        head = f'{write(harmony.CHANNEL)} "analysis" {write(harmony.MESSAGE)}'
        tail = f'{write("<|end|>")} {write(harmony.START)} "assistant"'
        return [f"thought: {head} thinking", *text_until("thinking", tail)]
    if dialect.thinking is None or dialect.has_thought(prompt):
        return []
    end = write(dialect.thinking.end)
    return [r"thought: thinking /[ \n]{0,4}/", *text_until("thinking", end)]
