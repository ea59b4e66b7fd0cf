"""Attention in torch, which a CPU runs and the kernel is measured by, against attention told plainly."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from backends.paged.attention import attend, reference, store_kv  # noqa: E402
from backends.paged.batch import Batch, KvCache  # noqa: E402
from tests.paged.kernels.world import (  # noqa: E402
    Features,
    Heads,
    answers,
    error,
    plainly,
    poisoned,
    world,
)

DECODES = [(0, 1), (16, 1), (300, 1), (15, 1), (700, 1)]
MIXED = [(40, 1), (0, 37), (33, 5), (0, 1), (500, 300), (7, 1)]
FEATURES = [
    Features(),
    Features(window=9),
    Features(window=100, has_sinks=True),
    Features(softcap=5.0),
    Features(window=33, softcap=20.0, has_sinks=True),
]


@pytest.mark.parametrize("features", FEATURES, ids=str)
@pytest.mark.parametrize("heads", [Heads(2, 4, 64), Heads(1, 7, 80), Heads(3, 1, 16)], ids=str)
@pytest.mark.parametrize("lengths", [DECODES, MIXED], ids=["decodes", "mixed"])
def test_it_is_attention(lengths, heads: Heads, features: Features) -> None:
    there = world(lengths, heads)
    assert error(answers(attend, there, features), plainly(there, features)) < 5e-6


def test_half_precision_is_near() -> None:
    for dtype, limit in ((torch.float16, 3e-3), (torch.bfloat16, 2e-2)):
        there = world(MIXED, Heads(2, 2, 64), dtype)
        assert error(answers(attend, there, Features()), plainly(there, Features())) < limit


@pytest.mark.parametrize("features", FEATURES, ids=str)
def test_a_row_is_the_same_whoever_stands_beside_it(features: Features) -> None:
    heads = Heads(2, 3, 32)
    there = world(MIXED, heads)
    together = answers(attend, there, features)
    batch = there.batch
    for i, (_, new) in enumerate(MIXED):
        start = int(batch.query_starts[i])
        context = int(batch.context_lengths[i])
        alone = Batch(
            positions=batch.positions[start : start + new],
            slots=batch.slots[start : start + new],
            query_starts=torch.tensor([0, new], dtype=torch.int32),
            context_lengths=batch.context_lengths[i : i + 1],
            block_tables=batch.block_tables[i : i + 1, : -(-context // 16)],
            max_query_length=new,
            max_context_length=context,
        )
        found = attend(
            there.q[start : start + new],
            there.k_cache,
            there.v_cache,
            alone,
            scale=there.scale,
            window=features.window,
            softcap=features.softcap,
            sinks=there.sinks if features.has_sinks else None,
        )
        assert error(found, together[start : start + new]) < 2e-6


def test_storing_touches_its_slots_alone() -> None:
    heads = Heads(2, 1, 8)
    k_cache, v_cache = poisoned(4, heads, torch.float32)
    k, v = torch.randn(3, 2, 8), torch.randn(3, 2, 8)
    store_kv(k, v, k_cache, v_cache, torch.tensor([35, -1, 2]))
    for new, cache in ((k, k_cache), (v, v_cache)):
        assert torch.equal(cache[2, 3], new[0])
        assert torch.equal(cache[0, 2], new[2])
        assert int((~cache.isnan()).sum()) == 2 * new[0].numel()


def test_a_view_holds_whole_blocks_of_all_layers() -> None:
    per_block = KvCache.bytes_per_block(3, 2, 8, torch.float16)
    assert per_block == 3 * 2 * 16 * 2 * 8 * 2
    buffer = torch.zeros(5 * per_block + 17, dtype=torch.uint8)
    cache = KvCache.view(buffer, 3, 2, 8, torch.float16)
    assert cache.num_blocks == 5
    for number, part in enumerate(part for layer in cache.layers for part in layer):
        part.fill_(number + 1)
    first = buffer[:per_block].view(torch.float16)
    assert first.unique().tolist() == [1, 2, 3, 4, 5, 6]
    assert not buffer[5 * per_block :].any()
    with pytest.raises(ValueError, match="hold no block"):
        KvCache.view(buffer[: per_block - 1], 3, 2, 8, torch.float16)


def test_long_prompts_are_taken_in_tiles() -> None:
    there = world([(0, 2 * reference.TILE + 3)], Heads(1, 2, 16))
    assert error(answers(attend, there, Features()), plainly(there, Features())) < 5e-6
