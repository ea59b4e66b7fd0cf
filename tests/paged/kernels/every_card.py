"""Every kernel compiled for every card, in every precision and for every width of heads.

Not collected by itself, as it takes minutes: `make test-kernels`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.paged.kernels.cards import CARDS, HEAD_DIMS
from tests.paged.kernels.compiling import (
    SMALL,
    attention,
    check_attention,
    check_small,
    needs_compiler,
    small,
)

pytestmark = [
    needs_compiler,
    pytest.mark.parametrize("dim", HEAD_DIMS),
    pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"]),
    pytest.mark.parametrize("card", CARDS),
]


@pytest.mark.parametrize("group", [1, 6])
@pytest.mark.parametrize(
    ("is_decode", "is_split", "features"),
    [(False, False, False), (False, False, True), (True, False, False), (True, True, True)],
    ids=["prefill", "prefill, features", "decode", "decode, split, features"],
)
def test_attention(
    is_decode: bool,
    is_split: bool,
    features: bool,
    group: int,
    card: str,
    dtype: str,
    dim: int,
    tmp_path: Path,
) -> None:
    made = attention(tmp_path, dtype, dim, group, is_decode, is_split, features, CARDS[card])
    check_attention(made, dtype, dim, is_decode)


@pytest.mark.parametrize("name", SMALL)
def test_what_only_moves_memory(name: str, card: str, dtype: str, dim: int, tmp_path: Path) -> None:
    check_small(small(name, dtype, dim, tmp_path, CARDS[card]), dtype, dim)
