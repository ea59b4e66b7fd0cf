"""How far a model has come with the tokens of one request. Pure; what holds them is the engine's."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Progression:
    """A prompt with the answer so far, of which the first `num_computed` tokens are computed.

    The last token is never among them before a step: running it is what yields the next one.
    """

    serial: int  # order of arrival
    tokens: list[int] | array[int]  # prompt, then answer
    max_tokens: int
    scope: str = ""
    num_prompt: int = field(init=False)
    num_computed: int = field(init=False, default=0)
    num_cached: int | None = field(init=False, default=None)  # of the prompt, at first admission

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_answer(self) -> int:
        return self.num_tokens - self.num_prompt

    @property
    def num_left(self) -> int:
        """Tokens to run before the next one can be sampled; 1 while decoding."""
        return self.num_tokens - self.num_computed

    @property
    def is_decoding(self) -> bool:
        return self.num_left == 1
