"""The kernel that chooses: what comes of compiling it, and what it launches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

import torch

from backends.paged.kernels import choice
from backends.paged.logprobs import score
from backends.paged.sampling import Settings, Way, sample
from backends.serving.engine import SamplingParams
from tests.paged.fake_device import CUDA, fake_device
from tests.paged.kernels.cards import CARDS
from tests.paged.kernels.compiling import compiled, needs_compiler
from tests.paged.truncation import PARAMS


@needs_compiler
@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("is_aligned", [True, False])
def test_it_compiles_without_spills(
    name: str, is_aligned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`is_aligned`: whether the vocabulary is a multiple of 16."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # what it is now; unset, triton warns
    made = compiled(
        choice._choose,
        dict.fromkeys(("logits", "reals"), "*fp32")
        | dict.fromkeys(("whole", "positions", "tokens"), "*i64"),
        {"TILE": choice.TILE},
        tmp_path,
        choice.NUM_WARPS,
        unaligned=() if is_aligned else ("row_stride", "vocab_size"),
        card=CARDS[name],
    )
    made.check()
    if is_aligned:
        assert re.search(r"ld\.global\.[\w.]*v4\.", made.ptx)


def test_whatever_the_settings_it_is_launched_once_and_compiled_once() -> None:
    size, ways = 3000, [Way(SamplingParams(**params), seed=0) for params in PARAMS]
    ways.append(Way(SamplingParams(temperature=0.0), seed=0))
    with fake_device() as device:
        known: set[Any] = set()
        for group in ([ways[-1]], *([way] for way in ways), ways):
            settings = Settings.of(group, size, CUDA)
            logits = torch.zeros(len(group), size, device=CUDA)
            positions = torch.zeros(len(group), dtype=torch.int64, device=CUDA)
            before, held = device.num_launched, device.held()
            tokens = sample(logits, settings, positions)
            assert device.num_launched - before == 2  # and the memory for the tokens
            assert device.held() - held == tokens.nbytes
            del tokens
            known = known or set(device.compiled)  # by the first of them
        assert known
        assert device.compiled == known


def test_logprobs_are_few_launches() -> None:
    with fake_device() as device:
        logits = torch.zeros(4, 3000, device=CUDA)
        tokens = torch.zeros(4, dtype=torch.int64, device=CUDA)
        before = device.num_launched
        score(logits, tokens, 5)
        assert device.num_launched - before <= 5  # of which two are views
