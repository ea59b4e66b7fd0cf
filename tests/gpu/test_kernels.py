"""What kernels do on the device, against the same in torch on the CPU."""

from __future__ import annotations

import pytest
import torch

from backends.paged import kernels
from backends.paged.kernels import reference
from tests.paged.kernels.world import Heads, error, poisoned

pytestmark = pytest.mark.gpu

LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}
every_dtype = pytest.mark.parametrize("dtype", LIMITS, ids=str)


@every_dtype
@pytest.mark.parametrize("unit_offset", [False, True])
@pytest.mark.parametrize("width", [48, 1000, 4096])
def test_norms(device: torch.device, width: int, unit_offset: bool, dtype: torch.dtype) -> None:
    rows, residual = torch.randn(7, width).to(dtype), torch.randn(7, width).to(dtype)
    weight = torch.randn(width).to(dtype)
    there = (residual.to(device), rows.to(device), weight.to(device))
    total, normed = kernels.add_rms_norm(*there, 1e-5, unit_offset=unit_offset)
    wanted = reference.add_rms_norm(residual, rows, weight, 1e-5, unit_offset=unit_offset)
    assert torch.equal(total.cpu(), wanted[0])
    assert error(normed.cpu(), wanted[1]) < 4 * LIMITS[dtype]


@every_dtype
@pytest.mark.parametrize("half", [64, 20])
def test_rotate_and_store(device: torch.device, half: int, dtype: torch.dtype) -> None:
    heads = Heads(2, 3, 128)
    qkv = torch.randn(5, 10, heads.dim).to(dtype)
    angles = torch.rand(5, 1, half) * 6
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    slots = torch.tensor([35, -1, 2, 0, 63])

    def run(where: torch.device) -> list[torch.Tensor]:
        parts = [part.to(where) for part in (qkv[:, :6], qkv[:, 6:8], qkv[:, 8:], cos, sin)]
        caches = [cache.to(where) for cache in poisoned(4, heads, dtype)]
        return [
            kernels.rotate_and_store(*parts, *caches, slots.to(where)).cpu(),
            *(c.cpu() for c in caches),
        ]

    for found, wanted in zip(run(device), run(torch.device("cpu")), strict=True):
        assert torch.equal(found.isnan(), wanted.isnan())
        assert error(found.nan_to_num(0.0), wanted.nan_to_num(0.0)) < LIMITS[dtype]
