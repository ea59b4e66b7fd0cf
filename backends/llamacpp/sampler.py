"""The next token out of a row of logits, for one sequence. numpy only; a full sort never happens.

The order is llama.cpp's: bias, penalties, top-k, typical, top-p, min-p, temperature, draw. Repetition is
counted over prompt and answer; presence and frequency, as in OpenAI's API, over the answer alone.
"""

from __future__ import annotations

import math
import random
from array import array
from typing import TYPE_CHECKING

import numpy as np

from backends.serving.engine import Constraint, SamplingParams, Token

if TYPE_CHECKING:
    from numpy.typing import NDArray


FEW, MANY = 1024, 16384  # likeliest tokens looked at for top-p, and where those are too few
COLDEST = 1e-4  # below this temperature the best is all there is, and dividing by it overflows
BLOCK = 512  # a draw from the whole vocabulary finds the block first: a cumulative sum is slow


class Sampler:
    """One sequence's way of choosing. Its random numbers depend on its seed and nothing else."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._constraint = params.grammar.start() if params.grammar else None
        self._random = random.Random(params.seed)
        self._is_plain = (
            not params.logit_bias
            and params.repetition_penalty == 1.0
            and params.presence_penalty == 0.0
            and params.frequency_penalty == 0.0
        )

    def sample(
        self, logits: NDArray[np.float32], tokens: array[int], num_prompt: int, *, banned: set[int]
    ) -> int | None:
        """The token that comes after `tokens`; None when the grammar lets nothing follow.
        Raises EngineError where the grammar cannot be followed any more.

        `banned` tokens are not chosen. `logits` is not changed.
        """
        shaped = logits if self._is_plain else self._shape(logits, tokens, num_prompt)
        if banned:
            shaped = shaped.copy() if shaped is logits else shaped
            shaped[list(banned)] = -np.inf
        if self._constraint is not None:
            shaped = _allowed(shaped, self._constraint)
            if not np.isfinite(shaped.max()):
                return None
        return self._choose(shaped)

    def accept(self, token: int) -> bool:
        """`token` is what came of it; whether the grammar lets nothing follow."""
        return self._constraint is not None and self._constraint.accept(token)

    def _shape(
        self, logits: NDArray[np.float32], tokens: array[int], num_prompt: int
    ) -> NDArray[np.float32]:
        params = self.params
        shaped = logits.copy()
        for token, bias in params.logit_bias.items():
            if 0 <= token < len(shaped):
                shaped[token] += bias
        start = 0 if params.penalty_last_n < 0 else max(0, len(tokens) - params.penalty_last_n)
        if params.repetition_penalty != 1.0:
            seen = np.unique(np.asarray(tokens[start:], dtype=np.int32))
            seen = seen[seen >= 0]  # what stands for images is no token
            scores = shaped[seen]
            factor = np.float32(params.repetition_penalty)
            shaped[seen] = np.where(scores > 0, scores / factor, scores * factor)
        if params.presence_penalty or params.frequency_penalty:
            answer = np.asarray(tokens[max(start, num_prompt) :], dtype=np.int32)
            seen, counts = np.unique(answer, return_counts=True)
            shaped[seen] -= params.presence_penalty + params.frequency_penalty * counts
        return shaped

    def _choose(self, logits: NDArray[np.float32]) -> int:
        params = self.params
        if params.temperature < COLDEST:
            return int(logits.argmax())
        is_whole = (
            not 0 < params.top_k < len(logits) and params.typical_p >= 1 and params.top_p >= 1
        )
        if is_whole and params.min_p <= 0:
            return self._draw_from_all(logits)
        ids = _at_least(logits, params.min_p) if is_whole else self._candidates(logits)
        weights = logits[ids].astype(np.float64) / params.temperature
        weights = np.exp(weights - weights.max()).cumsum()
        drawn = np.searchsorted(weights, self._random.random() * weights[-1], side="right")
        return int(ids[min(drawn, len(ids) - 1)])

    def _draw_from_all(self, logits: NDArray[np.float32]) -> int:
        scale = np.float32(1 / self.params.temperature)
        weights = np.exp((logits - logits.max()) * scale)
        starts = np.arange(0, len(weights), BLOCK)
        blocks = np.add.reduceat(weights, starts, dtype=np.float64).cumsum()
        drawn = self._random.random() * blocks[-1]
        block = min(int(np.searchsorted(blocks, drawn, side="right")), len(blocks) - 1)
        inside = weights[block * BLOCK : (block + 1) * BLOCK].cumsum(dtype=np.float64)
        rest = drawn - (blocks[block - 1] if block else 0.0)
        place = min(int(np.searchsorted(inside, rest, side="right")), len(inside) - 1)
        while place and weights[block * BLOCK + place] == 0.0:
            place -= 1  # rounding at the end of a block must not choose what has no weight
        return block * BLOCK + place

    def _candidates(self, logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """Token ids left by top-k, typical, top-p and min-p, likeliest first."""
        params = self.params
        ids, shares = self._likely(logits)
        if params.typical_p < 1:
            ids, shares = _typical(ids, shares, params.typical_p)
        if params.top_p < 1:
            keep = int(np.searchsorted(shares.cumsum(), params.top_p * min(1.0, shares.sum()))) + 1
            ids, shares = ids[:keep], shares[:keep]
        kept: NDArray[np.intp] = ids[shares >= params.min_p * shares.max()]
        return kept

    def _likely(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The top-k, or as many of the likeliest as top-p and typical can need, and their shares."""
        params = self.params
        top = logits.max()
        if 0 < params.top_k <= MANY:
            ids = _likeliest(logits, params.top_k)
            weights = np.exp((logits[ids] - top).astype(np.float64))
            return ids, weights / weights.sum()
        total = np.exp(logits - top).sum(dtype=np.float64)
        needed = min(params.top_p, params.typical_p)
        ids = _likeliest(logits, FEW)
        shares = np.exp((logits[ids] - top).astype(np.float64)) / total
        if shares.sum() < needed:
            ids = _likeliest(logits, MANY)
            shares = np.exp((logits[ids] - top).astype(np.float64)) / total
        return ids, shares


def _allowed(logits: NDArray[np.float32], constraint: Constraint) -> NDArray[np.float32]:
    bits = np.frombuffer(constraint.mask(), np.uint8)
    allowed = np.unpackbits(bits, count=len(logits), bitorder="little").view(np.bool_)
    return np.where(allowed, logits, np.float32(-np.inf))


def _likeliest(logits: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    size = len(logits)
    count = min(count, size)
    ids = np.argpartition(logits, size - count)[size - count :]
    return ids[np.argsort(-logits[ids], kind="stable")]


def _at_least(logits: NDArray[np.float32], share: float) -> NDArray[np.intp]:
    """Tokens at least `share` times as likely as the likeliest."""
    return np.nonzero(logits >= logits.max() + np.float32(math.log(min(share, 1.0))))[0]


def _typical(
    ids: NDArray[np.intp], shares: NDArray[np.float64], mass: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Those whose surprise is closest to what is to be expected, as many as make up `mass`."""
    surprise = -np.log(np.maximum(shares, 1e-300))
    distance = np.abs(surprise - (shares * surprise).sum())
    order = np.argsort(distance, kind="stable")
    keep = int(np.searchsorted(shares[order].cumsum(), mass * min(1.0, shares.sum()))) + 1
    kept = np.sort(order[:keep])
    return ids[kept], shares[kept]


def scored(logits: NDArray[np.float32], token: int, num_top: int) -> Token:
    """`token` with its logprob and the `num_top` likeliest, by the model's own distribution."""
    top = float(logits.max())
    norm = top + math.log(float(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
    best: tuple[tuple[int, float], ...] = ()
    if num_top > 0:
        ids = _likeliest(logits, num_top)
        best = tuple((int(id), float(logits[id]) - norm) for id in ids)
    return Token(token, float(logits[token]) - norm, best)
