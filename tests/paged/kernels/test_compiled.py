"""Every kernel compiled, for Hopper in most ways and for each other card in those that strain it most. All
ways for all cards: `every_card`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.paged.kernels.cards import CARDS
from tests.paged.kernels.compiling import (
    SMALL,
    attention,
    check_attention,
    check_small,
    needs_compiler,
    small,
)

pytestmark = needs_compiler

OTHERS = [name for name in CARDS if name != "H200"]


@pytest.mark.parametrize("features", [False, True], ids=["plain", "window, softcap, sinks"])
@pytest.mark.parametrize(("dim", "group"), [(64, 8), (96, 1), (128, 4), (256, 2)])
def test_prefill_uses_the_tensor_cores_of_hopper(
    dim: int, group: int, features: bool, tmp_path: Path
) -> None:
    made = attention(tmp_path, "bf16", dim, group, is_decode=False, features=features)
    check_attention(made, "bf16", dim, is_decode=False)
    assert made.products == {"wgmma.mma_async"}
    assert made.stack == 0


@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize(("dim", "group"), [(64, 8), (128, 4), (256, 2)])
def test_decode_fetches_in_advance_and_leaves_room_for_others(
    dim: int, group: int, is_split: bool, tmp_path: Path
) -> None:
    made = attention(tmp_path, "bf16", dim, group, True, is_split, features=is_split)
    check_attention(made, "bf16", dim, is_decode=True)
    assert made.programs >= (2 if dim > 128 else 3)
    assert made.stack == 0


@pytest.mark.parametrize(("dtype", "dim"), [("fp16", 128), ("fp32", 128), ("fp32", 256)])
@pytest.mark.parametrize("is_decode", [False, True], ids=["prefill", "decode"])
def test_other_precisions_on_hopper(dtype: str, dim: int, is_decode: bool, tmp_path: Path) -> None:
    made = attention(tmp_path, dtype, dim, 4, is_decode)
    check_attention(made, dtype, dim, is_decode)
    assert made.stack == 0


@pytest.mark.parametrize(
    ("name", "dtype", "dim"),
    [(name, "bf16", dim) for name in OTHERS for dim in (128, 256)]
    + [("A100", "fp16", 64), ("A100", "fp32", 128), ("RTX 3090", "fp32", 64)],
)
def test_prefill_of_other_cards(name: str, dtype: str, dim: int, tmp_path: Path) -> None:
    made = attention(tmp_path, dtype, dim, 4, is_decode=False, features=True, card=CARDS[name])
    check_attention(made, dtype, dim, is_decode=False)


@pytest.mark.parametrize(
    ("name", "dtype", "dim"),
    [
        ("A100", "bf16", 128),
        ("RTX 3090", "fp16", 80),
        ("RTX 4090", "bf16", 256),
        ("B200", "fp16", 64),
        ("RTX 5090", "fp32", 256),
    ],
)
def test_decode_of_other_cards(name: str, dtype: str, dim: int, tmp_path: Path) -> None:
    card = CARDS[name]
    made = attention(tmp_path, dtype, dim, 4, True, is_split=True, features=True, card=card)
    check_attention(made, dtype, dim, is_decode=True)


@pytest.mark.parametrize(("card", "dim"), [("H200", 128), ("RTX 3090", 80)])
@pytest.mark.parametrize("name", SMALL)
def test_what_only_moves_memory_moves_it_in_wide_pieces(
    name: str, card: str, dim: int, tmp_path: Path
) -> None:
    made = small(name, "bf16", dim, tmp_path, CARDS[card])
    check_small(made, "bf16", dim)
    assert made.stack == 0
