"""What is done to logits before a token is chosen: bias, penalties, and what may not be chosen.

Torch on whatever device the logits are; nothing waits for it. Repetition is counted over prompt and
answer; presence and frequency, as in OpenAI's API, over the answer alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backends.paged.device import to_device
from backends.serving.engine import SamplingParams


def is_penalised(params: SamplingParams) -> bool:
    """Whether the tokens so far change what comes next."""
    return params.repetition_penalty != 1.0 or bool(
        params.presence_penalty or params.frequency_penalty
    )


@dataclass(frozen=True, slots=True)
class History:
    """The tokens that count for the rows named by `Shaping.penalised`, in that order."""

    tokens: Tensor  # [P, longest] int64, prompt first; beyond a row's length: anything in the vocabulary
    lengths: Tensor  # [P, 1] int64
    num_prompt: Tensor  # [P, 1] int64

    @classmethod
    def of(
        cls,
        tokens: Sequence[Sequence[int]],
        num_prompt: Sequence[int],
        params: Sequence[SamplingParams],
        device: torch.device,
    ) -> History:
        """Of each row all its tokens, how many of them are the prompt's, and how it is sampled."""
        starts = [_start(*row) for row in zip(tokens, num_prompt, params, strict=True)]
        lengths = [len(row) - start for row, start in zip(tokens, starts, strict=True)]
        prompts = [max(0, n - start) for n, start in zip(num_prompt, starts, strict=True)]
        padded = np.zeros((len(tokens), max(lengths, default=0)), np.int64)
        for row, known, start in zip(padded, tokens, starts, strict=True):
            row[: len(known) - start] = known[start:]
        counts = to_device(torch.tensor([lengths, prompts], dtype=torch.int64), device)
        return cls(
            to_device(torch.from_numpy(padded), device), counts[0, :, None], counts[1, :, None]
        )


def _start(tokens: Sequence[int], num_prompt: int, params: SamplingParams) -> int:
    """Where the tokens begin that count."""
    near = len(tokens) - params.penalty_last_n if params.penalty_last_n >= 0 else 0
    counts_prompt = params.repetition_penalty != 1.0
    return max(0, near, 0 if counts_prompt else min(num_prompt, len(tokens)))


@dataclass(frozen=True, slots=True)
class _Penalties:
    """Of the penalised rows, P of them."""

    rows: Tensor  # [P, 1] int64
    repetition: Tensor  # [P, 1] float32
    presence: Tensor  # [P, 1] float32
    frequency: Tensor  # [P, 1] float32


@dataclass(frozen=True, slots=True)
class Shaping:
    """What is done to B rows of logits, on their device."""

    penalised: tuple[int, ...]  # rows that a History must be given for
    penalties: _Penalties | None
    biased: tuple[Tensor, Tensor, Tensor] | None  # rows, tokens, what is added
    banned: tuple[Tensor, Tensor] | None  # rows, tokens

    @classmethod
    def of(
        cls,
        params: Sequence[SamplingParams],
        banned: Sequence[frozenset[int]],
        vocab_size: int,
        device: torch.device,
    ) -> Shaping:
        penalised = tuple(row for row, p in enumerate(params) if is_penalised(p))
        biases = [
            (row, token, bias)
            for row, p in enumerate(params)
            for token, bias in p.logit_bias.items()
            if 0 <= token < vocab_size
        ]
        bans = [(row, token) for row, tokens in enumerate(banned) for token in sorted(tokens)]
        return cls(
            penalised,
            _penalties(penalised, params, device) if penalised else None,
            (*_places(biases, device), _reals([bias for _, _, bias in biases], device))
            if biases
            else None,
            _places(bans, device) if bans else None,
        )


def shape(
    logits: Tensor, shaping: Shaping, history: History | None = None, mask: Tensor | None = None
) -> Tensor:
    """`logits`, [B, V] float32, as a token is chosen from: a copy, where anything is done to them.

    `history` goes with `shaping.penalised`. `mask`, [B, ceil(V / 32)] int32, has the bit of every token
    that may follow.
    """
    biased, penalties, banned = shaping.biased, shaping.penalties, shaping.banned
    if biased is None and penalties is None and banned is None and mask is None:
        return logits
    shaped = logits.clone()
    if biased is not None:
        rows, tokens, biases = biased
        shaped.index_put_((rows, tokens), shaped[rows, tokens] + biases)  # no place is named twice
    if penalties is not None:
        if history is None:
            raise ValueError("penalties need the tokens so far")
        _penalise(shaped, penalties, history)
    if banned is not None:
        shaped.index_put_(banned, shaped.new_full((), -math.inf))
    if mask is not None:
        shaped.masked_fill_(_forbidden(mask, logits.shape[1]), -math.inf)
    return shaped


def _penalise(logits: Tensor, penalties: _Penalties, history: History) -> None:
    """A token that occurred more than once is written more than once, each time with the same."""
    places = torch.arange(history.tokens.shape[1], device=logits.device)
    known = places < history.lengths
    answered = known & (places >= history.num_prompt)
    counts = logits.new_zeros(2, len(history.tokens), logits.shape[1])
    counts[0].scatter_add_(1, history.tokens, known.to(logits.dtype))
    counts[1].scatter_add_(1, history.tokens, answered.to(logits.dtype))
    seen, said = counts[0].gather(1, history.tokens), counts[1].gather(1, history.tokens)
    values = logits[penalties.rows, history.tokens]
    weaker = torch.where(values > 0, values / penalties.repetition, values * penalties.repetition)
    values = torch.where(seen > 0, weaker, values)
    taken = penalties.presence + penalties.frequency * said
    values = torch.where(said > 0, values - taken, values)
    logits.index_put_((penalties.rows, history.tokens), values)


def _forbidden(mask: Tensor, vocab_size: int) -> Tensor:
    """[B, ceil(V / 32)] int32 -> [B, V] bool: where the bit is not set."""
    if mask.shape[1] != (vocab_size + 31) // 32:
        raise ValueError(f"a mask of {mask.shape[1]} words for {vocab_size} tokens")
    bits = 2 ** torch.arange(8, dtype=torch.uint8, device=mask.device)
    bytes_ = mask.view(torch.uint8)  # the least first, as everywhere that torch runs
    return ((bytes_[..., None] & bits) == 0).flatten(1)[:, :vocab_size]


def _penalties(
    rows: Sequence[int], params: Sequence[SamplingParams], device: torch.device
) -> _Penalties:
    of = [params[row] for row in rows]
    reals = [
        [p.repetition_penalty for p in of],
        [p.presence_penalty for p in of],
        [p.frequency_penalty for p in of],
    ]
    places = to_device(torch.tensor(rows, dtype=torch.int64), device)[:, None]
    return _Penalties(places, *_reals(reals, device)[..., None])


def _places(
    items: Sequence[tuple[int, int] | tuple[int, int, float]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows and tokens."""
    rows, tokens = [item[0] for item in items], [item[1] for item in items]
    both = to_device(torch.tensor([rows, tokens], dtype=torch.int64), device)
    return both[0], both[1]


def _reals(values: Sequence[float] | Sequence[Sequence[float]], device: torch.device) -> Tensor:
    return to_device(torch.tensor(values, dtype=torch.float32), device)
