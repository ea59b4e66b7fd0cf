"""The kernel that chooses, in Triton's interpreter.

Not collected by itself: the interpreter is chosen before a kernel is imported, so `test_interpreted`
runs this file in a process of its own.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from backends.paged import choice as plain
from backends.paged.kernels import choice as kernel
from backends.paged.randomness import key_of, uniform
from backends.paged.sampling import Settings, Way
from backends.serving.engine import SamplingParams
from tests.paged.truncation import PARAMS, agree, rows

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinities
SIZE = 300
TILE = 128  # so that a row has several
CPU = torch.device("cpu")


@triton.jit
def _bounds_of(logits, reals, whole, out, vocab_size, TILE: tl.constexpr):
    row = tl.program_id(0)
    logits += row * vocab_size
    best, least, _ = kernel._survey(logits, vocab_size, TILE)
    low, high = kernel._bounds(
        logits, vocab_size, least, best, tl.load(whole + row * 2 + 1),
        tl.load(reals + row * 4 + 1), tl.load(reals + row * 4 + 2), tl.load(reals + row * 4 + 3), TILE,
    )  # fmt: skip
    tl.store(out + row * 2, low)
    tl.store(out + row * 2 + 1, high)


def ways(**params) -> list[Way]:
    return [Way(SamplingParams(**params | each), seed=i) for i, each in enumerate(PARAMS)]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "TILE", TILE)


@pytest.mark.parametrize("name", rows(SIZE))
def test_bounds_are_those_of_sorting(name: str) -> None:
    logits = rows(SIZE)[name]
    settings = Settings.of(ways(), SIZE, CPU)
    together = torch.from_numpy(logits).repeat(len(PARAMS), 1)
    out = torch.empty(len(PARAMS), 2)
    _bounds_of[(len(PARAMS),)](together, settings.reals, settings.whole, out, SIZE, TILE=TILE)
    for way, (low, high) in zip(settings.ways, out.tolist(), strict=True):
        if name == "subnormal" and way.params.typical_p < 1:
            continue  # a mean of these is no float32
        left = logits[(logits >= low) & (logits <= high)]
        found = float(left.min()), float(left.max())
        assert agree(found, logits, way.params, slack=1e-5), way.params


def test_tokens_are_those_of_the_cpu() -> None:
    """Hot, so that all that is left may be drawn."""
    settings = Settings.of(ways(temperature=30.0), SIZE, CPU)
    positions = torch.arange(len(PARAMS)) * 1000
    for name in ("spread", "two values", "masked", "rounded"):
        row = rows(SIZE)[name]
        logits = torch.from_numpy(row).repeat(len(PARAMS), 1)
        found = kernel.choose(logits, settings.reals, settings.whole, positions).tolist()
        for way, position, token in zip(settings.ways, positions.tolist(), found, strict=True):
            expected = plain.choose(row, way.params, uniform(key_of(way.seed), position))
            assert token == expected, way


def test_the_best_is_the_first_of_equals_and_nothing_follows_where_nothing_may() -> None:
    logits = torch.full((4, SIZE), -torch.inf)
    logits[0, [140, 150, 290]] = 3.0
    logits[1] = torch.nan
    logits[2, 5] = torch.inf
    for temperature, expected in ((0.0, {140}), (1.0, {140, 150, 290})):
        params = SamplingParams(temperature=temperature, top_p=0.9)
        settings = Settings.of([Way(params, seed=2)] * 4, SIZE, CPU)
        first, *others = kernel.choose(
            logits, settings.reals, settings.whole, torch.arange(4)
        ).tolist()
        assert first in expected
        assert others == [-1, -1, -1]
