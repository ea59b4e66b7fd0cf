"""Every Triton kernel against its torch reference, in Triton's interpreter.

Not collected by itself: the interpreter is chosen before a kernel is imported, so `test_interpreted`
runs this file in a process of its own. bfloat16 is checked by compiling alone: the interpreter gets
its arithmetic wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
import triton
from torch import Tensor

from backends.paged.attention import kernel
from backends.paged.attention import reference as attention_reference
from backends.paged.kernels import fused, reference
from backends.paged.spec import Activation
from tests.paged.kernels.cards import CARDS, HEAD_DIMS
from tests.paged.kernels.world import Features, Heads, answers, error, plainly, poisoned, world

# Where a sigmoid is 0, numpy says that its exponential is beyond all bounds.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

LIMITS = {torch.float32: 3e-6, torch.float16: 3e-3}
DTYPES = list(LIMITS)

# Cards that have every shape of any; the second divides a context among fewer programs.
TRIED = ("H200", "RTX 3090")
SPLIT = [(600, 1), (3, 1), (255, 1)]  # contexts that are divided, and one too short for it
MIXED = [(300, 1), (0, 40), (33, 5), (0, 1)]
CASES = [
    (SPLIT, Heads(1, 4, 32), Features()),
    (SPLIT, Heads(1, 3, 32), Features(window=400, has_sinks=True)),
    (SPLIT, Heads(1, 1, 16), Features(softcap=5.0)),
    (MIXED, Heads(2, 2, 16), Features()),
    (MIXED, Heads(1, 7, 80), Features(window=50, softcap=20.0, has_sinks=True)),
    (MIXED, Heads(1, 4, 64), Features(window=9)),
    (MIXED, Heads(1, 2, 128), Features()),
    (MIXED, Heads(1, 4, 256), Features(window=40, softcap=20.0)),
]


def test_this_is_the_interpreter() -> None:
    assert triton.knobs.runtime.interpret


def attend_on(card: str) -> Callable[..., Tensor]:
    return partial(kernel.attend, gpu=CARDS[card].gpu)


on_h200 = attend_on("H200")


@pytest.mark.parametrize("card", TRIED)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("lengths", "heads", "features"), CASES)
def test_attention(
    lengths, heads: Heads, features: Features, dtype: torch.dtype, card: str
) -> None:
    there = world(lengths, heads, dtype)
    found = answers(attend_on(card), there, features)
    assert error(found, plainly(there, features)) < LIMITS[dtype]


def test_what_any_card_gets_is_among_these() -> None:
    """Numbers of warps and stages are nothing to the interpreter."""

    def tiles(dims: Iterable[int], cards: Iterable[str]) -> set[tuple[bool, int, int, int]]:
        return {
            (shaped is kernel.decode_shape, dtype.itemsize, shape.rows, shape.tile)
            for shaped in (kernel.decode_shape, kernel.prefill_shape)
            for card, dim, dtype in product(cards, dims, DTYPES)
            for shape in (shaped(4, dim, dtype.itemsize, CARDS[card].gpu),)
        }

    assert tiles(HEAD_DIMS, CARDS) <= tiles([heads.dim for _, heads, _ in CASES], TRIED)


def test_bfloat16_is_read_and_written() -> None:
    there = world(MIXED, Heads(2, 2, 16), torch.bfloat16)
    assert error(answers(on_h200, there, Features()), plainly(there, Features())) < 2e-2


def test_attention_over_strided_queries() -> None:
    there = world(MIXED, Heads(2, 2, 16))
    fused_rows = torch.cat((there.q, torch.full_like(there.q, float("nan"))), dim=1)
    strided = replace(there, q=fused_rows[:, : there.q.shape[1]])
    found = answers(on_h200, strided, Features())
    assert torch.equal(found, answers(on_h200, there, Features()))


def test_a_cache_of_more_values_than_an_int32_counts(tmp_path: Path) -> None:
    """It is a file of holes, but for a few places."""
    there = world([(30, 1), (0, 20)], Heads(1, 2, 16), torch.float16)
    apart = (1 << 31) // (len(there.k_cache) - 2)  # so that the last block begins beyond
    count = 2 * apart * len(there.k_cache)
    path = str(tmp_path / "cache")
    halves = torch.from_file(path, shared=True, size=count, dtype=torch.float16).chunk(2)
    size, strides = there.k_cache.shape, (apart, *there.k_cache.stride()[1:])
    k_cache, v_cache = (half.as_strided(size, strides) for half in halves)
    k_cache.copy_(there.k_cache)
    v_cache.copy_(there.v_cache)
    far = replace(there, k_cache=k_cache, v_cache=v_cache)
    assert error(answers(on_h200, far, Features()), plainly(there, Features())) < 3e-3

    k, v = torch.randn(2, 1, 1, 16).half().unbind()
    last = torch.tensor([len(k_cache) * k_cache.shape[1] - 1])
    kernel.store_kv(k, v, k_cache, v_cache, last)
    assert torch.equal(k_cache[-1, -1], k[0])
    fused.rotate_and_store(k, k, v, *torch.ones(2, 1, 1, 8).half(), k_cache, v_cache, last - 1)
    assert torch.equal(v_cache[-1, -2], v[0])


@pytest.mark.parametrize("is_padded", [False, True])
def test_padding_of_a_captured_graph_disturbs_nobody(is_padded: bool) -> None:
    there = world(SPLIT, Heads(1, 2, 16))
    batch, count = there.batch, len(SPLIT)
    padded = replace(
        there,
        q=torch.cat((there.q, there.q[:is_padded])),
        batch=replace(
            batch,
            positions=torch.cat((batch.positions, batch.positions[:is_padded])),
            query_starts=torch.cat((batch.query_starts, batch.query_starts[-1:] + is_padded)),
            context_lengths=torch.cat(
                (batch.context_lengths, torch.tensor([0], dtype=torch.int32))
            ),
            block_tables=torch.cat((batch.block_tables, batch.block_tables[:1] * 0)),
            max_context_length=4096,
        ),
    )
    found = answers(on_h200, padded, Features())
    assert error(found[:count], plainly(there, Features())) < 3e-6
    assert not found[count:].any()
    other = answers(attention_reference.attend, padded, Features())
    assert error(found, other) < 3e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_store(dtype: torch.dtype) -> None:
    heads = Heads(3, 1, 20)
    mine, other = poisoned(4, heads, dtype), poisoned(4, heads, dtype)
    qkv = torch.randn(3, 9, 20).to(dtype)
    slots = torch.tensor([35, -1, 2])
    kernel.store_kv(qkv[:, 3:6], qkv[:, 6:], *mine, slots)
    attention_reference.store_kv(qkv[:, 3:6], qkv[:, 6:], *other, slots)
    for found, wanted in zip(mine, other, strict=True):
        assert torch.equal(found.nan_to_num(9.0), wanted.nan_to_num(9.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("unit_offset", [False, True])
def test_norm(dtype: torch.dtype, unit_offset: bool) -> None:
    rows = torch.randn(5, 100).to(dtype)
    residual, weight = torch.randn(5, 100).to(dtype), torch.randn(100).to(dtype)
    options = {"eps": 1e-5, "unit_offset": unit_offset}
    found = fused.rms_norm(rows, weight, **options)
    assert error(found, reference.rms_norm(rows, weight, **options)) < 2 * LIMITS[dtype]
    total, normed = fused.add_rms_norm(residual, rows, weight, **options)
    other_total, other = reference.add_rms_norm(residual, rows, weight, **options)
    assert torch.equal(total, other_total)
    assert error(normed, other) < 4 * LIMITS[dtype]


def test_norm_of_heads() -> None:
    qkv = torch.randn(4, 9 * 24)
    heads, weight = qkv[:, : 3 * 24].unflatten(-1, (3, 24)), torch.randn(24)
    found = fused.rms_norm(heads, weight, 1e-6)
    assert error(found, reference.rms_norm(heads, weight, 1e-6)) < 3e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["silu", "gelu_tanh"])
def test_gated(kind: str, dtype: torch.dtype) -> None:
    rows = torch.randn(3, 2 * 1100).to(dtype)
    wanted = reference.activate(rows, Activation(kind))
    assert error(fused.gated(rows, kind), wanted) < 4 * LIMITS[dtype]
    with pytest.raises(ValueError, match="relu"):
        fused.gated(rows, "relu")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("half", [12, 5])
def test_rotate_and_store(half: int, dtype: torch.dtype) -> None:
    heads = Heads(2, 3, 24)
    qkv = torch.randn(3, 10, 24).to(dtype)
    q, k, v = qkv[:, :6], qkv[:, 6:8], qkv[:, 8:]
    angles = torch.rand(3, 1, half) * 6
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    slots = torch.tensor([17, -1, 40])
    mine, other = poisoned(4, heads, dtype), poisoned(4, heads, dtype)
    found = fused.rotate_and_store(q, k, v, cos, sin, *mine, slots)
    wanted = reference.rotate_and_store(q, k, v, cos, sin, *other, slots)
    assert error(found, wanted) < LIMITS[dtype]
    for cache, like in zip(mine, other, strict=True):
        assert torch.equal(cache.isnan(), like.isnan())
        assert error(cache.nan_to_num(), like.nan_to_num()) < LIMITS[dtype]
