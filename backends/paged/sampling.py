"""The next tokens out of rows of logits, on whatever device these are.

The order is llama.cpp's: bias, penalties, what may not be chosen (`shaping`); top-k, typical, top-p, min-p,
temperature, draw (`choice` on a CPU, `kernels.choice` on a device: one launch, whatever the settings). A
row's token depends on its logits, its seed and its position, never on its neighbours.

Nothing here waits for a device. Where there is one without Triton, its logits come to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.paged import choice
from backends.paged.device import runs_triton, to_device
from backends.paged.randomness import as_signed, key_of, uniform
from backends.paged.shaping import History, Shaping, shape
from backends.serving.engine import SamplingParams


@dataclass(frozen=True, slots=True)
class Way:
    """How one sequence's tokens are chosen. `seed` is `params.seed`, or a fresh one where that is None."""

    params: SamplingParams
    seed: int
    banned: frozenset[int] = frozenset()  # never chosen


@dataclass(frozen=True, slots=True)
class Settings:
    """How B rows are sampled. Made anew only when the rows change."""

    ways: tuple[Way, ...]
    shaping: Shaping
    reals: Tensor  # [B, 4] float32: temperature (0: greedy), top-p, typical, log(min_p)
    whole: Tensor  # [B, 2] int64: the key of the random numbers, top-k (V: off)

    @classmethod
    def of(cls, ways: Sequence[Way], vocab_size: int, device: torch.device) -> Settings:
        params = [way.params for way in ways]
        reals = [
            [
                0.0 if p.temperature < choice.COLDEST else p.temperature,
                p.top_p,
                p.typical_p,
                choice.min_gap(p),
            ]
            for p in params
        ]
        whole = [
            [as_signed(key_of(way.seed)), way.params.top_k if way.params.top_k > 0 else vocab_size]
            for way in ways
        ]
        return cls(
            tuple(ways),
            Shaping.of(params, [way.banned for way in ways], vocab_size, device),
            to_device(torch.tensor(reals, dtype=torch.float32), device),
            to_device(torch.tensor(whole, dtype=torch.int64), device),
        )


def sample(
    logits: Tensor,
    settings: Settings,
    positions: Tensor,
    history: History | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """One token for each row of `logits`, [B, V] float32: [B] int64; -1 where nothing may follow.

    `positions`, [B] int64, are the positions that the tokens will have in their sequences; with the
    seed they choose the random number. `history` and `mask` are those of `shape`. `logits` is not changed.
    """
    shaped = shape(logits, settings.shaping, history, mask)
    if runs_triton(shaped):
        from backends.paged.kernels.choice import choose

        return choose(shaped, settings.reals, settings.whole, positions)
    tokens = [
        choice.choose(row, way.params, uniform(key_of(way.seed), position))
        for row, way, position in zip(
            shaped.cpu().numpy(), settings.ways, positions.tolist(), strict=True
        )
    ]
    return torch.tensor(tokens, dtype=torch.int64, device=logits.device)
