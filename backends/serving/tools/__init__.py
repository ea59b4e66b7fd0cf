"""Reasoning and tool calls in an answer, by the model's own markers.

`dialect` finds out how a model writes; `reader` reads its answers, `grammar` says how they must be where
a call or a form is asked for. `calls` is what all ways of writing calls have in common, and a file each
holds one of them: `objects` and `named` with arguments in JSON, `tagged`, `gemma` and `python` with
`arguments` one by one, `bare` texts and `values` among them, `harmony` in channels. `tape` is what all
readers read from.
"""

from backends.serving.tools.calls import Tool, Tools
from backends.serving.tools.dialect import HERMES, Dialect, Thinking, find_dialect
from backends.serving.tools.grammar import Wanted, answer_rules, writer
from backends.serving.tools.reader import AnswerReader
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
