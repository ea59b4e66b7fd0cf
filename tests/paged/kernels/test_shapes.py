"""How kernels are laid out on different cards: from their properties alone."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

from backends.paged.attention.kernel import (
    Shape,
    decode_shape,
    num_splits,
    prefill_shape,
)
from tests.paged.kernels.cards import CARDS

# Of heads of 64, 128 and 256 dimensions, in 2 and in 4 bytes.
HOPPER_DECODE = {
    (64, 2): Shape(16, 64, 4, 3),
    (128, 2): Shape(16, 64, 4, 3),
    (256, 2): Shape(16, 32, 4, 3),
    (64, 4): Shape(16, 32, 8, 3),
    (128, 4): Shape(16, 32, 8, 3),
    (256, 4): Shape(16, 16, 8, 3),
}
SMALL_DECODE = HOPPER_DECODE | {
    (128, 2): Shape(16, 32, 4, 3),
    (256, 2): Shape(16, 16, 4, 3),
    (128, 4): Shape(16, 16, 8, 3),
}
HOPPER_PREFILL = {
    (64, 2): Shape(128, 64, 8, 3),
    (128, 2): Shape(128, 64, 8, 3),
    (256, 2): Shape(128, 32, 8, 2),
    (64, 4): Shape(32, 16, 8, 2),
    (128, 4): Shape(32, 16, 8, 2),
    (256, 4): Shape(16, 16, 8, 2),
}
SMALL_PREFILL = HOPPER_PREFILL | {
    (64, 2): Shape(128, 32, 8, 3),
    (128, 2): Shape(128, 32, 8, 3),
    (256, 2): Shape(64, 32, 8, 2),
    (64, 4): Shape(32, 16, 8, 3),
    (128, 4): Shape(32, 16, 8, 3),
}


@pytest.mark.parametrize(
    ("card", "decode", "prefill"),
    [
        ("H200", HOPPER_DECODE, HOPPER_PREFILL),
        ("B200", HOPPER_DECODE, HOPPER_PREFILL | {(256, 2): SMALL_PREFILL[256, 2]}),
        ("A100", SMALL_DECODE, SMALL_PREFILL),
        ("RTX 3090", SMALL_DECODE, SMALL_PREFILL),
        ("RTX 5090", SMALL_DECODE, SMALL_PREFILL),
    ],
)
def test_shapes_follow_from_the_card(card: str, decode, prefill) -> None:
    gpu = CARDS[card].gpu
    for (dim, itemsize), shape in decode.items():
        assert decode_shape(4, dim, itemsize, gpu) == shape
    for (dim, itemsize), shape in prefill.items():
        assert prefill_shape(4, dim, itemsize, gpu) == shape


def test_a_group_has_its_rows_however_many_heads_it_has() -> None:
    gpu = CARDS["RTX 3090"].gpu
    assert decode_shape(20, 128, 2, gpu).rows == 32
    assert prefill_shape(48, 128, 4, gpu).rows == 64
    assert prefill_shape(48, 256, 2, gpu).rows == 64


def test_contexts_are_divided_until_the_card_is_full() -> None:
    small, large = CARDS["RTX 3090"].gpu, CARDS["H200"].gpu
    assert num_splits(8, 8, 100_000, 64, small) == 8
    assert num_splits(8, 8, 100_000, 64, large) == 16
    assert num_splits(128, 8, 100_000, 64, large) == 1
    assert num_splits(1, 1, 100_000, 64, small) == 64
    assert num_splits(1, 1, 1000, 64, small) == 4, "too short to be worth more"
