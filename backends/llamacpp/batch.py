"""What one step computes: every decode row, then prefill chunks beside them; or a part of an image. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backends.llamacpp.sequence import ImageSpan, Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start` to `start + length` of one sequence, run in one step."""

    sequence: Sequence
    start: int
    length: int

    @property
    def ends_prompt(self) -> bool:
        """Whether the chunk reaches the last token, whose logits say what comes next."""
        return self.start + self.length == self.sequence.num_tokens

    @property
    def scored(self) -> int:
        """How many of its first positions are wanted for the logprobs of the prompt."""
        if not self.sequence.score_prompt:
            return 0
        return max(0, min(self.start + self.length, self.sequence.num_prompt - 1) - self.start)

    @property
    def num_outputs(self) -> int:
        return self.scored + self.ends_prompt

    @property
    def image(self) -> ImageSpan | None:
        """The image that its tokens are of; a chunk of text has none."""
        return self.sequence.image_at(self.start)


def plan_chunks(running: Iterable[Sequence], budget: int, max_outputs: int) -> list[Chunk]:
    """Chunks of text of one step, at most `budget` tokens and `max_outputs` rows of logits.

    Decodes come first, so that no prompt holds up an answer under way; what is left of the budget goes
    to the prompts in order of arrival.
    """
    chunks: list[Chunk] = []
    prompts: list[Sequence] = []
    for sequence in sorted(running, key=lambda sequence: sequence.serial):
        if sequence.is_decoding and budget and max_outputs:
            chunks.append(Chunk(sequence, sequence.num_computed, 1))
            budget -= 1
            max_outputs -= 1
        elif not sequence.is_decoding:
            prompts.append(sequence)
    for sequence in prompts:
        chunk = _prompt_chunk(sequence, budget, max_outputs)
        if chunk is not None:
            chunks.append(chunk)
            budget -= chunk.length
            max_outputs -= chunk.num_outputs
    return chunks


def _prompt_chunk(sequence: Sequence, budget: int, max_outputs: int) -> Chunk | None:
    length = min(sequence.text_left, budget)
    if sequence.score_prompt:
        length = min(length, max_outputs)
    elif length == sequence.num_left and max_outputs == 0:
        length -= 1
    return Chunk(sequence, sequence.num_computed, length) if length > 0 else None


def plan_image(waiting: Iterable[Sequence], budget: int) -> Chunk | None:
    """Of sequences that have come to an image the first, and the next part of its image: at most `budget`
    tokens, or all of one that cannot be run in parts."""
    sequence = min(waiting, key=lambda sequence: sequence.serial, default=None)
    if sequence is None:
        return None
    image = sequence.image_at(sequence.num_computed)
    assert image is not None
    left = image.end - sequence.num_computed
    return Chunk(sequence, sequence.num_computed, left if image.in_one_step else min(left, budget))
