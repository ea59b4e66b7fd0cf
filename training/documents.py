"""What the models learn from: chat turns and raw text, cut into weighted segments.

Full weight lies on what the model must say (and on the token that ends it); what others say weighs a
little, so that the model knows the language it is spoken to in; role headers weigh nothing.
"""

from dataclasses import dataclass
from typing import Literal

START, END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPOKEN, HEARD, GIVEN = 1.0, 0.1, 0.0

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    weight: float


Document = list[Segment]


def chat(turns: list[Turn]) -> Document:
    return [segment for turn in turns for segment in turn_segments(turn)]


def turn_segments(turn: Turn) -> list[Segment]:
    weight = SPOKEN if turn.role == "assistant" else HEARD
    return [
        Segment(f"{START}{turn.role}\n", GIVEN),
        Segment(turn.text + END, weight),
        Segment("\n", HEARD),
    ]


def raw(text: str) -> Document:
    return [Segment(text + END_OF_TEXT, SPOKEN)]
