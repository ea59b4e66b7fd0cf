"""One token out of every row of logits, as one Triton kernel: one program a row, nothing beside the logits.

It does what `backends.paged.choice` does in numpy, without sorting: the bound that top-k, typical or top-p
sets is found by halving, and what lies on either side of the middle is counted or weighed in one pass over
the row. A pass also finds the values next to the middle, so that as many halvings are needed as distinguish
the values there are: about 10 for logits that were bfloat16, and 280 for the oddest. Rows have a program each, so what a sum comes to
is the same whoever else is in the batch.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096  # logits looked at at once: four loads of 16 bytes under way in every thread
NUM_WARPS = 8


def choose(logits: Tensor, reals: Tensor, whole: Tensor, positions: Tensor) -> Tensor:
    """A token for each row of `logits`, [B, V] float32, V below 2^19: [B] int64; -1 where nothing may follow.

    `reals`, [B, 4] float32, and `whole`, [B, 2] int64, are those of `sampling.Settings`; `positions`, [B]
    int64.
    """
    num_rows, vocab_size = logits.shape
    tokens = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    _choose[(num_rows,)](
        logits, reals, whole, positions, tokens, logits.stride(0), vocab_size,
        TILE=TILE, num_warps=NUM_WARPS,
    )  # fmt: skip
    return tokens


@triton.jit
def _choose(
    logits, reals, whole, positions, tokens, row_stride, vocab_size, TILE: tl.constexpr
):  # fmt: skip
    """Grid: rows."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    temperature = tl.load(reals + row * 4)
    best, least, token = _survey(logits, vocab_size, TILE)
    is_finite = (best > -float("inf")) & (best < float("inf"))
    token = tl.where(is_finite, token, -1)
    if is_finite & (temperature > 0.0):
        low, high = _bounds(
            logits, vocab_size, least, best, tl.load(whole + row * 2 + 1),
            tl.load(reals + row * 4 + 1), tl.load(reals + row * 4 + 2), tl.load(reals + row * 4 + 3),
            TILE,
        )  # fmt: skip
        number = _uniform(tl.load(whole + row * 2), tl.load(positions + row))
        token = _drawn(logits, vocab_size, low, high, temperature, number, TILE // 2)
    tl.store(tokens + row, token.to(tl.int64))


@triton.jit
def _bounds(
    logits, vocab_size, least, best, top_k, top_p, typical_p, min_gap, TILE: tl.constexpr
):  # fmt: skip
    """The lowest and the highest logit that may be chosen. `least` and `best` are those there are."""
    low, high = least, best
    if top_k < vocab_size:
        low = _bound(
            logits, vocab_size, best, 0.0, low, high, low, high, top_k.to(tl.float32),
            COUNTS=True, IS_TYPICAL=False, TILE=TILE,
        )  # fmt: skip
    if typical_p < 1.0:
        total, expected = _weigh(logits, vocab_size, best, low, high, TILE)
        farthest = tl.maximum(tl.abs(low - best - expected), tl.abs(expected))
        nearest = tl.full([], 0.0, tl.float32)
        nearness = _bound(
            logits, vocab_size, best, expected, low, high, -farthest, nearest, typical_p * total,
            COUNTS=False, IS_TYPICAL=True, TILE=TILE,
        )  # fmt: skip
        low, high = _near(logits, vocab_size, best, expected, low, high, nearness, TILE)
    if top_p < 1.0:
        total, _ = _weigh(logits, vocab_size, high, low, high, TILE)
        # All that weigh less than this together weigh less than what is dropped.
        lightest = (1.0 - top_p) / 2 * total / vocab_size
        floor = tl.minimum(tl.maximum(low, high + tl.log(lightest)), high)
        low = _bound(
            logits, vocab_size, high, 0.0, low, high, floor, high, top_p * total,
            COUNTS=False, IS_TYPICAL=False, TILE=TILE,
        )  # fmt: skip
    return tl.maximum(low, high + min_gap), high


@triton.jit
def _survey(logits, vocab_size, TILE: tl.constexpr):
    """The largest logit, the smallest that is not -inf, and where the largest is."""
    best = tl.full([TILE], -float("inf"), tl.float32)
    least = tl.full([TILE], float("inf"), tl.float32)
    places = tl.zeros([TILE], tl.int32)
    for start in range(0, vocab_size, TILE):
        i = start + tl.arange(0, TILE)
        values = tl.load(logits + i, mask=i < vocab_size, other=-float("inf"))
        places = tl.where(values > best, i, places)
        best = tl.maximum(best, values)
        least = tl.minimum(least, tl.where(values > -float("inf"), values, float("inf")))
    top = tl.max(best, 0)
    first = tl.min(tl.where(best == top, places, vocab_size), 0)
    return top, tl.min(least, 0), first


@triton.jit
def _weigh(logits, vocab_size, best, low, high, TILE: tl.constexpr):
    """What those from `low` to `high` weigh, and their weighted mean distance from `best`."""
    weighed = tl.zeros([TILE], tl.float32)
    distant = tl.zeros([TILE], tl.float32)
    for start in range(0, vocab_size, TILE):
        i = start + tl.arange(0, TILE)
        values = tl.load(logits + i, mask=i < vocab_size, other=-float("inf"))
        gaps = values - best
        weights = tl.where((values >= low) & (values <= high), tl.exp(gaps), 0.0)
        weighed += weights
        distant += tl.where(weights > 0.0, weights * gaps, 0.0)
    total = tl.sum(weighed, 0)
    return total, tl.sum(distant, 0) / total


@triton.jit
def _near(logits, vocab_size, best, expected, low, high, nearness, TILE: tl.constexpr):
    """The smallest and the largest of those from `low` to `high` that are so near to `expected`."""
    least = tl.full([TILE], float("inf"), tl.float32)
    most = tl.full([TILE], -float("inf"), tl.float32)
    for start in range(0, vocab_size, TILE):
        i = start + tl.arange(0, TILE)
        values = tl.load(logits + i, mask=i < vocab_size, other=-float("inf"))
        is_near = (
            (values >= low) & (values <= high) & (-tl.abs(values - best - expected) >= nearness)
        )
        least = tl.minimum(least, tl.where(is_near, values, float("inf")))
        most = tl.maximum(most, tl.where(is_near, values, -float("inf")))
    return tl.min(least, 0), tl.max(most, 0)


@triton.jit
def _bound(
    logits, vocab_size, best, expected, low, high, floor, ceiling, wanted,
    COUNTS: tl.constexpr, IS_TYPICAL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The largest score from `floor` to `ceiling` that those which reach it, of those from `low` to `high`,
    weigh `wanted`, or are so many. A score is the logit itself, or how near it is to `expected`.
    """
    lower, upper = _rank(floor), _rank(ceiling)
    while lower < upper:
        middle = _rank(0.5 * _ranked(lower) + 0.5 * _ranked(upper))
        middle = tl.minimum(tl.maximum(middle, lower + 1), upper)  # so it ends, whatever values are
        bar = _ranked(middle)
        mass = tl.zeros([TILE], tl.float32)
        above = tl.full([TILE], float("inf"), tl.float32)
        below = tl.full([TILE], -float("inf"), tl.float32)
        for start in range(0, vocab_size, TILE):
            i = start + tl.arange(0, TILE)
            values = tl.load(logits + i, mask=i < vocab_size, other=-float("inf"))
            is_inside = (values >= low) & (values <= high)
            scores = -tl.abs(values - best - expected) if IS_TYPICAL else values
            reaches = is_inside & (scores >= bar)
            weights = 1.0 if COUNTS else tl.exp(values - best)
            mass += tl.where(reaches, weights, 0.0)
            above = tl.minimum(above, tl.where(reaches, scores, float("inf")))
            below = tl.maximum(below, tl.where(is_inside & (scores < bar), scores, -float("inf")))
        reached = tl.sum(mass, 0)
        if (reached >= wanted) & (reached > 0.0):
            lower = tl.maximum(middle, _rank(tl.min(above, 0)))
        else:
            upper = tl.minimum(middle - 1, _rank(tl.max(below, 0)))
    return _ranked(lower)


@triton.jit
def _rank(value):
    """float32 -> int32 in the same order."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)


@triton.jit
def _ranked(rank):
    """int32 -> the float32 of this rank."""
    return tl.where(rank >= 0, rank, rank ^ 0x7FFFFFFF).to(tl.float32, bitcast=True)


@triton.jit
def _uniform(key, position):
    """As `backends.paged.randomness.uniform` does it."""
    z = key.to(tl.uint64, bitcast=True) + position.to(tl.uint64) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)
    return (z >> 12).to(tl.float64) * 2.220446049250313e-16


@triton.jit
def _drawn(logits, vocab_size, low, high, temperature, number, TILE: tl.constexpr):
    """The first of those from `low` to `high` whose sum exceeds what is wanted. Sums are of whole numbers, which
    are the same in any order: the sum of a tile is what its last value comes to."""
    total = tl.full([], 0, tl.int64)
    for start in range(0, vocab_size, TILE):
        i = start + tl.arange(0, TILE)
        total += tl.sum(_shares(logits, i, vocab_size, low, high, temperature), 0)
    wanted = tl.minimum((number * total.to(tl.float64)).to(tl.int64), total - 1)
    token = tl.full([], -1, tl.int32)
    before = tl.full([], 0, tl.int64)
    for start in range(0, vocab_size, TILE):
        if token < 0:
            i = start + tl.arange(0, TILE)
            shares = _shares(logits, i, vocab_size, low, high, temperature)
            after = before + tl.sum(shares, 0)
            if after > wanted:
                exceeds = before + tl.cumsum(shares, 0) > wanted
                token = tl.min(tl.where(exceeds, i, vocab_size), 0)
            before = after
    return token


@triton.jit
def _shares(logits, i, vocab_size, low, high, temperature):
    """Weights as `backends.paged.choice` has them: `BEST` that of the best."""
    values = tl.load(logits + i, mask=i < vocab_size, other=-float("inf"))
    weights = tl.exp((values - high) / temperature)
    return tl.where((values >= low) & (values <= high), weights * 17592186044416.0, 0.0).to(
        tl.int64
    )
