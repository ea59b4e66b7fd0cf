"""What top-k, typical, top-p and min-p leave, told plainly: sorted, in float64. And logits that are hard."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from backends.serving.engine import SamplingParams

TINY = float(np.finfo(np.float32).smallest_subnormal)


def bounds(logits: np.ndarray, params: SamplingParams) -> tuple[float, float]:
    left = np.sort(logits[logits > -np.inf].astype(np.float64))[::-1]
    if 0 < params.top_k < len(left):
        left = left[left >= left[params.top_k - 1]]
    if params.typical_p < 1:
        shares = np.exp(left - left[0])
        shares /= shares.sum()
        surprise = -(left - left[0] - math.log(np.exp(left - left[0]).sum()))
        distance = np.abs(surprise - (shares * surprise).sum())
        order = np.argsort(distance, kind="stable")
        left = left[distance <= distance[order[_enough(shares[order], params.typical_p)]]]
    if params.top_p < 1:
        weights = np.exp(left - left[0])
        left = left[left >= left[_enough(weights, params.top_p)]]
    if params.min_p > 0:
        left = left[left >= left[0] + math.log(min(params.min_p, 1.0))]
    return float(left.min()), float(left.max())


def _enough(weights: np.ndarray, share: float) -> int:
    """How many, less one, until they weigh `share` of all, and more than nothing."""
    total, so_far = math.fsum(weights), 0.0
    for place, weight in enumerate(weights):
        so_far += weight
        if so_far >= share * total and so_far > 0:
            return place
    return len(weights) - 1


def agree(
    found: tuple[float, float], logits: np.ndarray, params: SamplingParams, slack: float
) -> bool:
    """Whether these are the bounds for shares that differ by no more than `slack`."""
    near = [bounds(logits, p) for p in _neighbours(params, slack)]
    return all(
        min(other) <= value <= max(other)
        for value, other in zip(found, zip(*near, strict=True), strict=True)
    )


def _neighbours(params: SamplingParams, slack: float) -> Iterator[SamplingParams]:
    for first in (-slack, 0.0, slack):
        for second in (-slack, 0.0, slack):
            yield replace(
                params,
                typical_p=params.typical_p + first if params.typical_p < 1 else 1.0,
                top_p=params.top_p + second if params.top_p < 1 else 1.0,
                min_p=params.min_p * (1 + second),
            )


def rows(size: int) -> dict[str, np.ndarray]:
    """Rows of `size` logits, float32, by what is hard about them."""
    chance = np.random.default_rng(size)
    normal = chance.normal(0, 3, size)
    masked = np.where(chance.random(size) < 0.9, -np.inf, normal)
    masked[size // 2] = 1.0
    huge = normal.copy()
    huge[size // 3] = 3e38
    told = {
        "spread": normal,
        "flat": chance.normal(0, 1e-3, size),
        "steep": normal * 40,
        "all equal": np.full(size, 2.5),
        "two values": np.where(chance.random(size) < 0.5, 1.0, 1.25),
        "masked": masked,
        "one left": np.where(np.arange(size) == size - 1, -7.0, -np.inf),
        "one huge": huge,
        "huge and its opposite": np.where(chance.random(size) < 0.5, 3e38, -3e38),
        "both zeros": np.where(chance.random(size) < 0.5, 0.0, -0.0),
        "subnormal": np.round(chance.normal(0, 3, size)) * TINY,
        "all magnitudes": np.exp(chance.uniform(-80, 80, size)) * chance.choice([-1, 1], size),
        "rounded": bfloat16(normal),
    }
    return {name: row.astype(np.float32) for name, row in told.items()}


def bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


PARAMS = [
    {},
    {"top_p": 0.0},
    {"top_p": 1e-6},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_p": 0.9999},
    {"top_p": 1.0},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 10**6},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"typical_p": 0.0},
    {"typical_p": 0.3},
    {"typical_p": 0.95},
    {"top_k": 20, "top_p": 0.8},
    {"typical_p": 0.7, "top_p": 0.6},
    {"top_k": 12, "typical_p": 0.8, "top_p": 0.8, "min_p": 0.05},
]
