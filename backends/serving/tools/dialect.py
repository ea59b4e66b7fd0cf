"""How a model writes its answers: where it thinks, and how it calls tools.

Found in the model's chat template, which shows the model its own earlier answers and so has the markers
that it was trained on. Nothing else tells: not the architecture, not the name.
"""

# ruff: noqa: RUF001 - markers as the models write them

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from backends.serving.tools import harmony
from backends.serving.tools.calls import CallFormat, Tools, Write, literal, text_until
from backends.serving.tools.gemma import GemmaCalls
from backends.serving.tools.harmony import HarmonyCalls
from backends.serving.tools.named import MistralCalls, SectionCalls
from backends.serving.tools.objects import BareCalls, ObjectCalls
from backends.serving.tools.python import PythonCalls
from backends.serving.tools.tagged import TaggedCalls
from backends.serving.tools.tape import Cut, Heard, NoCall, Script, Tape

HERMES = ObjectCalls("<tool_call>", "</tool_call>")
_DSML = "｜DSML｜"


@dataclass(frozen=True, slots=True)
class Thinking:
    """The markers around reasoning."""

    begin: str
    end: str


_THINKING = (
    Thinking("[THINK]", "[/THINK]"),
    Thinking("<|START_THINKING|>", "<|END_THINKING|>"),
    Thinking("<|channel>thought", "<channel|>"),
    Thinking("<seed:think>", "</seed:think>"),
    Thinking("<think>", "</think>"),
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A model's way of answering. Without `calls`, it was never taught to call tools."""

    calls: CallFormat | None = None
    thinking: Thinking | None = None

    @property
    def is_harmony(self) -> bool:
        return isinstance(self.calls, HarmonyCalls)

    @property
    def markers(self) -> tuple[str, ...]:
        """Markers that may be control tokens, whose text a reader must see."""
        thinking = () if self.thinking is None else (self.thinking.begin, self.thinking.end)
        return (*thinking, *(() if self.calls is None else self.calls.markers))

    def is_thinking(self, prompt: str) -> bool:
        """Whether the prompt has already begun the answer with reasoning."""
        return self.thinking is not None and prompt.rstrip().endswith(self.thinking.begin)

    def has_thought(self, prompt: str) -> bool:
        """Whether the prompt has begun the answer with reasoning and ended it."""
        return self.thinking is not None and prompt.rstrip().endswith(self.thinking.end)


def _tagged_dsml(source: str) -> TaggedCalls:
    section = "function_calls" if "function_calls>" in source else "tool_calls"
    return TaggedCalls(
        (f"<{_DSML}{section}>", f"</{_DSML}{section}>"),
        (f'<{_DSML}invoke name="', f"</{_DSML}invoke>"),
        ('">',),
        (f'<{_DSML}parameter name="', '"'),
        ">",
        f"</{_DSML}parameter>",
        space="\n",
    )


def _invoked(outer: str) -> TaggedCalls:
    return TaggedCalls(
        (f"<{outer}>", f"</{outer}>"),
        ('<invoke name="', "</invoke>"),
        ('">',),
        ('<parameter name="', '">'),
        "",
        "</parameter>",
        space="\n",
    )


def _functions(outer: str) -> TaggedCalls:
    return TaggedCalls(
        (f"<{outer}>", f"</{outer}>"),
        ("<function=", "</function>"),
        (">",),
        ("<parameter=", ">"),
        "",
        "</parameter>",
        is_padded=True,
        space="\n",
    )


_GLM = TaggedCalls(
    ("<tool_call>", "</tool_call>"),
    ("", ""),
    ("\n", "<arg_key>", "</tool_call>"),
    ("<arg_key>", "</arg_key>"),
    "<arg_value>",
    "</arg_value>",
    space="\n",
)
_KIMI = SectionCalls(
    ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    ("<|tool_call_begin|>", "<|tool_call_end|>"),
    "<|tool_call_argument_begin|>",
    is_numbered=True,
)


def _deepseek(source: str) -> SectionCalls:
    return SectionCalls(
        ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        ("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"),
        "<｜tool▁sep｜>",
        is_fenced="```json" in source,
    )


def find_calls(source: str) -> CallFormat | None:
    """How the model that this template belongs to writes calls; None where nothing tells."""
    if "tools" not in source:
        return None
    outer = re.search(r"<(\w+:tool_call)>", source)
    if harmony.CHANNEL in source and harmony.MESSAGE in source:
        return HarmonyCalls()
    if _DSML in source:
        return _tagged_dsml(source)
    if "<｜tool▁calls▁begin｜>" in source:
        return _deepseek(source)
    if "<|tool_calls_section_begin|>" in source:
        return _KIMI
    if "<|tool_call>call:" in source:
        return GemmaCalls("<|tool_call>", "<tool_call|>", '<|"|>')
    if "<start_function_call>" in source:
        return GemmaCalls("<start_function_call>", "<end_function_call>", "<escape>")
    if "[TOOL_CALLS]" in source:
        return MistralCalls(is_list="[ARGS]" not in source)
    if "<parameter=" in source and "<function=" in source:
        return _functions(outer[1] if outer else "tool_call")
    if "<invoke name=" in source:
        return _invoked(outer[1] if outer else "tool_calls")
    if "<arg_key>" in source:
        return _GLM
    if "<|tool_call_start|>" in source or "<|tool_list_start|>" in source:
        return PythonCalls("<|tool_call_start|>", "<|tool_call_end|>")
    if "<|START_ACTION|>" in source:
        return ObjectCalls("<|START_ACTION|>", "<|END_ACTION|>", is_list=True)
    if "<|tool_call|>" in source:
        end = "<|/tool_call|>" if "<|/tool_call|>" in source else ""
        return ObjectCalls("<|tool_call|>", end, is_list=True, more_starts=("<tool_call>",))
    for name in ("TOOLCALL", "tool_calls"):
        if f"</{name}>" in source:
            return ObjectCalls(f"<{name}>", f"</{name}>", is_list=True)
    if "<tool_call>" in source:
        return HERMES
    if "<|python_start|>" in source:
        return PythonCalls()
    if "<|start_header" in source and '"parameters": ' in source and "<function=" not in source:
        return BareCalls()
    return None


def find_dialect(source: str) -> Dialect:
    """How the model that this template belongs to answers."""
    thinking = next((kind for kind in _THINKING if kind.end in source), None)
    return Dialect(find_calls(source), thinking)


# -- reading ---------------------------------------------------------------------------------------


class AnswerReader:
    """Splits an answer, as it comes, into content, reasoning and calls."""

    def __init__(
        self,
        dialect: Dialect,
        tools: Tools,
        *,
        is_thinking: bool,
        max_calls: int | None = None,
    ) -> None:
        self._max_calls = max_calls
        self._tape = Tape()
        if dialect.calls is not None:
            self._tape.call_id = dialect.calls.call_id
        self._script = _script(self._tape, dialect, tools, is_thinking)
        self._is_plain = not self._advance()

    @property
    def num_calls(self) -> int:
        """Calls that have begun."""
        return self._tape.num_calls

    @property
    def is_done(self) -> bool:
        """As many calls as were allowed: the rest of the answer is not wanted."""
        return self._max_calls is not None and self._tape.num_whole_calls >= self._max_calls

    def push(self, text: str) -> Heard:
        """Take text; give what is now certain."""
        if self._is_plain:
            return Heard(text)
        self._tape.add(text)
        return self._hear()

    def finish(self) -> Heard:
        """The answer is over: give what was kept back."""
        if self._is_plain or self.is_done:
            return Heard()
        self._tape.is_over = True
        return self._hear()

    def _hear(self) -> Heard:
        self._is_plain = not self._advance()
        heard = self._tape.take()
        if self._is_plain:
            heard.content += self._tape.rest()
        return heard

    def _advance(self) -> bool:
        """Let the script read on; whether it wants more."""
        try:
            next(self._script)
        except StopIteration:
            return False
        return True


def _script(tape: Tape, dialect: Dialect, tools: Tools, is_thinking: bool) -> Script[None]:
    if dialect.is_harmony:
        yield from harmony.read_answer(tape)
        return
    if dialect.thinking is not None:
        is_whole = yield from _read_thinking(tape, dialect.thinking, is_thinking)
        if not is_whole:
            tape.rest()
            return
    if dialect.calls is not None and tools:
        yield from _read_calls(tape, dialect.calls, tools)


def _read_thinking(tape: Tape, thinking: Thinking, is_thinking: bool) -> Script[bool]:
    """False: the answer is over, and only the beginning of a marker may be left of it."""
    if not is_thinking:
        place = tape.mark()
        yield from tape.skip_space()
        if not (yield from tape.accept(thinking.begin)):
            tape.go_back(place)
            return True
        tape.forget()
    end = yield from tape.pass_until((thinking.end,), tape.reasoning.say, is_open=True)
    yield from tape.skip_space()
    return bool(end)


def _read_calls(tape: Tape, calls: CallFormat, tools: Tools) -> Script[None]:
    if calls.may_be_bare:
        place = tape.mark()
        if not (yield from _read_call(tape, calls, tools)):
            tape.go_back(place)
    starts = calls.starts
    while starts:
        start = yield from tape.pass_until(starts, tape.content.say)
        if not start:
            break
        place = tape.mark()
        if not (yield from _read_call(tape, calls, tools)):
            tape.go_back(place)
            tape.content.say(start)
    if not starts:
        tape.content.say((yield from tape.until_over()))
    tape.content.keep_space()


def _read_call(tape: Tape, calls: CallFormat, tools: Tools) -> Script[bool]:
    """False: these were no calls, and nothing has been heard of them."""
    before = tape.num_calls
    try:
        yield from calls.read(tape, tools)
    except (NoCall, Cut) as error:
        return tape.num_calls > before or (isinstance(error, Cut) and not calls.may_be_bare)
    finally:
        tape.forget()
    return True


# -- constraining ----------------------------------------------------------------------------------


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
