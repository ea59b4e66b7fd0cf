"""Whether a decoder computes what transformers does."""

from __future__ import annotations

import random

import torch
import transformers

from backends.paged.decoder import Decoder
from tests.paged.models import oracle
from tests.paged.models.paging import Paged

CHUNK = 17  # not a multiple of a block


def agree(
    model: transformers.PreTrainedModel,
    decoder: Decoder,
    length: int = 45,
    vocab_size: int = 97,
    error: float = 1e-4,
) -> None:
    """Same logits for two prompts in chunks beside each other, and the same greedy answers to both."""
    rng = random.Random(1)
    prompts = [[rng.randrange(3, vocab_size) for _ in range(n)] for n in (length, length // 2)]
    paged = Paged(decoder, 2, length + 8)
    parts: list[list[torch.Tensor]] = [[], []]
    for start in range(0, length, CHUNK):
        chunks = [(i, prompt[start : start + CHUNK]) for i, prompt in enumerate(prompts)]
        chunks = [(i, tokens) for i, tokens in chunks if tokens]
        for (i, _), logits in zip(chunks, paged.step(chunks), strict=True):
            parts[i].append(logits)
    for prompt, mine in zip(prompts, parts, strict=True):
        theirs = oracle.logits(model, prompt)
        assert theirs.std() > 0.1  # or nothing would be compared
        torch.testing.assert_close(torch.cat(mine), theirs, atol=error, rtol=0)

    answers = [[int(mine[-1][-1].argmax())] for mine in parts]
    for _ in range(5):
        steps = paged.step([(i, answer[-1:]) for i, answer in enumerate(answers)])
        for answer, logits in zip(answers, steps, strict=True):
            answer.append(int(logits[-1].argmax()))
    assert answers == [oracle.greedy(model, prompt, 6) for prompt in prompts]
