"""One request's tokens and how far the model has come with them. Pure; no llama.cpp here."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from backends.serving.sequence import Progression


def token_array(tokens: Iterable[int] = ()) -> array[int]:
    """Token ids as a C array: slices of it compare at memory speed, which prefix matching lives on."""
    return array("i", tokens)


def common_prefix(left: array[int], right: array[int], limit: int) -> int:
    """How many leading tokens the two share, at most `limit`. Linear, by halving what is unknown."""
    low, high = 0, min(len(left), len(right), limit)
    if left[:16] != right[:16]:
        high = min(high, 16)
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(slots=True, eq=False)
class Sequence(Progression):
    """A request's tokens; those that are computed stand in the KV cells of `slot`."""

    tokens: array[int]
    score_prompt: bool = False  # every prompt position's logits are wanted, so nothing is reused
    slot: int | None = None
    waits_for: tuple[Sequence, int] | None = None  # a prefill that will bring so many shared tokens

    @property
    def is_running(self) -> bool:
        return self.slot is not None
