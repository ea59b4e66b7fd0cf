"""One token out of a row of logits, in numpy: what a CPU runs, and what `kernels.choice` is tested against.

Each of top-k, typical, top-p and min-p leaves the tokens whose logits lie in one interval, out of those
that the one before left. So only values are looked at, equal ones stay or go together, and what is left is
drawn in the order of the vocabulary.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from backends.serving.engine import SamplingParams

COLDEST = 1e-4  # below this temperature the best is all there is, and dividing by it overflows
NOTHING = -1  # no token may follow
BEST = np.float32(2**44)  # what the best weighs in a draw: the sum of almost 2^19 such fits 64 bits

Floats = NDArray[np.float32]


def choose(logits: Floats, params: SamplingParams, uniform: float) -> int:
    """A token for `logits`, [V]; `uniform`, in [0, 1), says which where several can follow."""
    if not -math.inf < logits.max() < math.inf:
        return NOTHING
    if params.temperature < COLDEST:
        return int(logits.argmax())
    with np.errstate(over="ignore"):  # what is beyond all bounds below the best has no weight
        low, high = bounds(logits, params)
        if low == -math.inf:
            return _drawn(logits, high, params.temperature, uniform)
        left = np.flatnonzero((logits >= low) & (logits <= high))
        return int(left[_drawn(logits[left], high, params.temperature, uniform)])


def bounds(logits: Floats, params: SamplingParams) -> tuple[np.float32, np.float32]:
    """The lowest and the highest of `logits`, [V], that may be chosen; -inf: there is no lowest."""
    low, high = np.float32(-math.inf), logits.max()
    if 0 < params.top_k < len(logits):
        place = len(logits) - params.top_k
        low = np.partition(logits, place)[place]
    if params.typical_p < 1:
        low, high = _typical(_within(logits, low, high), params.typical_p)
    if params.top_p < 1:
        low = _nucleus(_within(logits, low, high), params.top_p)
    if params.min_p > 0:
        low = max(low, high + np.float32(min_gap(params)))
    return low, high


def min_gap(params: SamplingParams) -> float:
    """How far below the best logit one may be by min-p; -inf: any distance."""
    return math.log(min(params.min_p, 1.0)) if params.min_p > 0 else -math.inf


def _within(logits: Floats, low: np.float32, high: np.float32) -> Floats:
    return logits[(logits >= low) & (logits <= high) & (logits > -math.inf)]


def _typical(logits: Floats, mass: float) -> tuple[np.float32, np.float32]:
    """Those whose surprise is closest to what is to be expected, as many as make up `mass`."""
    gaps = logits - logits.max()
    weights = np.exp(gaps).astype(np.float64)
    expected = np.float32((weights * np.where(weights > 0, gaps, 0)).sum() / weights.sum())
    distances = np.abs(gaps - expected)
    order = distances.argsort()
    sums = weights[order].cumsum()
    farthest = distances[order[_first_to_reach(sums, mass)]]
    left = logits[distances <= farthest]
    return left.min(), left.max()


def _nucleus(logits: Floats, mass: float) -> np.float32:
    """The lowest of the likeliest that make up `mass`."""
    weights = np.exp(logits - logits.max()).astype(np.float64)
    # All that weigh less together weigh less than what is dropped: only the others need an order.
    least = (1 - mass) / 2 * weights.sum() / len(weights)
    candidates = np.sort(logits[weights >= least])[::-1]
    sums = np.exp(candidates - candidates[0]).cumsum(dtype=np.float64)
    wanted = mass * weights.sum()
    low: np.float32 = candidates[_first_to_reach(sums, wanted / sums[-1])]
    return low


def _first_to_reach(sums: NDArray[np.float64], share: float) -> int:
    """The place of the first sum that is not below `share` of the last."""
    reached = int(np.searchsorted(sums, share * sums[-1], side="left"))
    return min(reached, len(sums) - 1)


def _drawn(logits: Floats, best: np.float32, temperature: float, uniform: float) -> int:
    """The first whose sum exceeds what is wanted. Sums are of whole numbers: quicker than of floating point, where
    one waits for the other, and the same in any order."""
    weights = np.exp((logits - best) / np.float32(temperature))
    sums = (weights * BEST).astype(np.int64).cumsum()
    total = int(sums[-1])
    wanted = min(int(uniform * total), total - 1)
    return int(np.searchsorted(sums, wanted, side="right"))
