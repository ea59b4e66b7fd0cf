"""How a model writes its answers: where it thinks, and how it calls tools.

Found in the model's chat template, which shows the model its own earlier answers and so has the markers
that it was trained on. Nothing else tells: not the architecture, not the name.
"""

# ruff: noqa: RUF001 - markers as the models write them

from __future__ import annotations

import re
from dataclasses import dataclass

from backends.serving.tools import harmony
from backends.serving.tools.calls import CallFormat
from backends.serving.tools.gemma import GemmaCalls
from backends.serving.tools.harmony import HarmonyCalls
from backends.serving.tools.named import MistralCalls, SectionCalls
from backends.serving.tools.objects import BareCalls, ObjectCalls
from backends.serving.tools.python import PythonCalls
from backends.serving.tools.tagged import TaggedCalls

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
