"""Reasoning and tool calls in an answer, by the model's own markers.

`dialect` finds out how a model writes, reads its answers and says how they must be where a call or a
schema is asked for; `tape` is what all readers read from; the other files hold one way of writing
calls each.
"""

from backends.serving.tools.calls import Tool, Tools
from backends.serving.tools.dialect import (
    HERMES,
    AnswerReader,
    Dialect,
    Thinking,
    Wanted,
    answer_rules,
    find_dialect,
    writer,
)
from backends.serving.tools.tape import CallPart, Heard

__all__ = [
    "HERMES",
    "AnswerReader",
    "CallPart",
    "Dialect",
    "Heard",
    "Thinking",
    "Tool",
    "Tools",
    "Wanted",
    "answer_rules",
    "find_dialect",
    "writer",
]
