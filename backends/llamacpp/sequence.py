"""One request's tokens and how far the model has come with them. Pure; no llama.cpp here."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field


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
class Sequence:
    """A prompt with the answer so far.

    `num_computed` tokens of `tokens` stand in the KV cells of `slot`. The last token is never among
    them before a step: running it is what yields the next one.
    """

    serial: int  # order of arrival
    tokens: array[int]  # prompt, then answer
    max_tokens: int
    scope: str = ""
    score_prompt: bool = False  # every prompt position's logits are wanted, so nothing is reused
    num_prompt: int = field(init=False)
    num_computed: int = 0
    num_cached: int | None = None  # of the prompt, at first admission
    slot: int | None = None
    waits_for: tuple[Sequence, int] | None = None  # a prefill that will bring so many shared tokens

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_answer(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def num_left(self) -> int:
        """Tokens to run before the next one can be sampled; 1 while decoding."""
        return len(self.tokens) - self.num_computed

    @property
    def is_running(self) -> bool:
        return self.slot is not None

    @property
    def is_decoding(self) -> bool:
        return self.num_left == 1
