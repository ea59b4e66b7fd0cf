"""What top-k, typical, top-p and min-p leave on a CPU, of logits that are hard to cut."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.paged.choice import NOTHING, bounds, choose
from backends.paged.randomness import key_of, uniform
from backends.paged.sampling import Settings, Way, sample
from backends.serving.engine import SamplingParams
from tests.paged.truncation import PARAMS, agree, bfloat16, rows

LAST = math.nextafter(1.0, 0.0)


def found(logits: np.ndarray, params: SamplingParams) -> tuple[float, float]:
    with np.errstate(over="ignore"):
        low, high = bounds(logits, params)
    left = logits[(logits >= low) & (logits <= high) & (logits > -np.inf)]
    return float(left.min()), float(left.max())


def check(logits: np.ndarray, params: SamplingParams) -> None:
    if params.typical_p < 1 and 0 < np.abs(logits).max() < 1e-30:
        return  # a mean of these is no float32
    assert agree(found(logits, params), logits, params, slack=1e-6)


@pytest.mark.parametrize("size", [1, 2, 40, 3000])
@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_they_are_those_of_sorting(params: dict[str, Any], size: int) -> None:
    for logits in rows(size).values():
        check(logits, SamplingParams(**params))


shares = st.floats(0.0, 1.0) | st.floats(0.0, 1e-5) | st.floats(0.999, 1.0)


@settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(st.integers(-9, 9) | st.floats(-30, 30, width=32), min_size=1, max_size=30),
    top_k=st.integers(0, 35),
    top_p=shares,
    typical_p=shares,
    min_p=shares,
    is_rounded=st.booleans(),
)
def test_together_they_are_those_of_sorting(
    logits: list[float],
    top_k: int,
    top_p: float,
    typical_p: float,
    min_p: float,
    is_rounded: bool,
) -> None:
    values = np.array(logits, np.float32)
    params = SamplingParams(top_k=top_k, top_p=top_p, typical_p=typical_p, min_p=min_p)
    check(bfloat16(values) if is_rounded else values, params)


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_only_what_is_left_is_drawn(params: dict[str, Any]) -> None:
    for logits in rows(60).values():
        way = SamplingParams(**params, temperature=1e6)
        low, high = found(logits, way)
        drawn = {choose(logits, way, place / 500) for place in range(500)}
        left = np.flatnonzero((logits >= low) & (logits <= high) & (logits > -np.inf)).tolist()
        assert choose(logits, way, 0.0) in left
        assert choose(logits, way, LAST) in left
        assert drawn <= set(left)
        if high - float(logits[left].min()) < 1e3:
            assert drawn == set(left)


def test_rows_of_one_batch_are_cut_each_in_its_way() -> None:
    told = rows(200)
    ways = [Way(SamplingParams(**params), seed) for seed, params in enumerate(PARAMS * len(told))]
    logits = np.stack([row for row in told.values() for _ in PARAMS])
    positions = torch.arange(len(ways))
    tokens = sample(
        torch.from_numpy(logits), Settings.of(ways, 200, torch.device("cpu")), positions
    )
    for row, way, position, token in zip(
        logits, ways, positions.tolist(), tokens.tolist(), strict=True
    ):
        assert token == choose(row, way.params, uniform(key_of(way.seed), position))


@pytest.mark.parametrize("params", [{}, {"temperature": 0.0}, {"top_p": 0.9}, {"typical_p": 0.5}])
@pytest.mark.parametrize("value", [-np.inf, np.nan, np.inf])
def test_where_nothing_is_finite_nothing_follows(params: dict[str, Any], value: float) -> None:
    logits = np.full(9, value, np.float32)
    assert choose(logits, SamplingParams(**params), 0.5) == NOTHING
