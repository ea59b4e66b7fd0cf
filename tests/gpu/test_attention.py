"""The attention kernel on its device, against attention told plainly in float64."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backends.paged.attention import attend, store_kv
from tests.paged.kernels.world import Features, Heads, answers, error, plainly, world

pytestmark = pytest.mark.gpu

LIMITS = {torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
DECODES = [(0, 1), (16, 1), (300, 1), (15, 1), (5000, 1)]
MIXED = [(40, 1), (0, 37), (33, 5), (0, 1), (700, 300), (7, 1)]
PROMPTS = [(0, 1000), (500, 129)]
HEADS = [Heads(2, 4, 64), Heads(1, 7, 80), Heads(3, 1, 96), Heads(2, 4, 128), Heads(1, 2, 256), Heads(1, 8, 64)]  # fmt: skip
FEATURES = [
    Features(),
    Features(window=100, has_sinks=True),
    Features(window=33, softcap=20.0),
]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("features", FEATURES, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("lengths", [DECODES, MIXED, PROMPTS], ids=["decodes", "mixed", "prompts"])
def test_it_is_attention(
    device: torch.device, lengths: Any, heads: Heads, features: Features, dtype: torch.dtype
) -> None:
    there = world(lengths, heads, dtype)
    found = answers(attend, moved(there, device), features)
    assert error(found.cpu(), plainly(there, features)) < LIMITS[dtype]


def test_it_is_the_same_twice(device: torch.device) -> None:
    there = moved(world(MIXED, Heads(2, 4, 128), torch.bfloat16), device)
    first = answers(attend, there, Features())
    assert all(torch.equal(answers(attend, there, Features()), first) for _ in range(5))


def test_a_sequence_beyond_32_bits_of_cache(gpu: torch.device) -> None:
    """Block numbers times strides are more than 2**31 elements."""
    heads, dtype = Heads(8, 1, 128), torch.bfloat16
    num_blocks = 2**31 // (16 * heads.kv * heads.dim) + 64
    if torch.cuda.mem_get_info(gpu)[0] < 3 * num_blocks * 16 * heads.kv * heads.dim * 2:
        pytest.skip("the GPU has no room for so large a cache")
    there = moved(world([(40, 1), (0, 20)], heads, dtype), gpu)
    shift = num_blocks - there.k_cache.shape[0]

    def far(cache: Tensor) -> Tensor:
        large = torch.empty((num_blocks, *cache.shape[1:]), dtype=dtype, device=gpu)
        large[shift:] = cache
        return large

    batch = replace(there.batch, block_tables=there.batch.block_tables + shift)
    large = replace(there, k_cache=far(there.k_cache), v_cache=far(there.v_cache), batch=batch)
    assert torch.equal(answers(attend, large, Features()), answers(attend, there, Features()))
    keys = torch.randn(1, heads.kv, heads.dim, dtype=dtype, device=gpu)
    slots = torch.tensor([16 * num_blocks - 1], device=gpu)
    store_kv(keys, keys, large.k_cache, large.v_cache, slots)
    assert torch.equal(large.k_cache[-1, -1], keys[0])


def moved(there: Any, device: torch.device) -> Any:
    """The same, its tensors on the device, those of its parts too."""

    def on_device(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    def tensors(of: Any) -> dict[str, Any]:
        names = [field.name for field in fields(of) if field.init]
        return {name: on_device(getattr(of, name)) for name in names}

    return replace(
        there, **tensors(there) | {"batch": replace(there.batch, **tensors(there.batch))}
    )
