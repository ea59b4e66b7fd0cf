"""What kernels do on the device, against the same in torch on the CPU."""

from __future__ import annotations

import pytest
import torch

from backends.paged import kernels
from backends.paged.kernels import reference
from backends.paged.sampling import Settings, Way, sample
from backends.paged.spec import Activation
from backends.serving.engine import SamplingParams
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


@every_dtype
@pytest.mark.parametrize("num_tokens", [1, 5, 700])
def test_experts(device: torch.device, num_tokens: int, dtype: torch.dtype) -> None:
    count, per_token, width, inner = 6, 2, 200, 136
    x, scores = torch.randn(num_tokens, width).to(dtype), torch.randn(num_tokens, count).to(dtype)
    scores[:, 3] = -9.0  # nobody's first choice
    weight = (torch.randn(count, 2 * inner, width) * width**-0.5).to(dtype)
    bias = torch.randn(count, 2 * inner).to(dtype)
    back = (torch.randn(count, width, inner) * inner**-0.5).to(dtype)

    def run(where: torch.device) -> torch.Tensor:
        routes = kernels.route(scores.to(where), per_token, normalized=True)
        gate_up = (x.to(where), weight.to(where), bias.to(where))
        rows = kernels.expert_products(*gate_up, routes, Activation("silu"))
        by_pair = kernels.expert_products(rows, back.to(where), None, routes)
        return kernels.combine(by_pair, routes.shares).cpu()

    found = run(device)
    assert error(found, run(torch.device("cpu"))) < 4 * LIMITS[dtype]
    assert torch.equal(found, run(device))


@pytest.mark.parametrize(
    "way",
    [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.95},
        {"temperature": 1.0, "top_k": 40},
        {"temperature": 1.2, "top_k": 50, "top_p": 0.9, "min_p": 0.02},
        {"temperature": 1.0, "typical_p": 0.8},
        {"temperature": 1.0, "logit_bias": {3: 5.0, 8: -100.0}},
    ],
    ids=str,
)
@pytest.mark.parametrize("vocab_size", [1000, 151936])
def test_choosing(device: torch.device, vocab_size: int, way: dict[str, float]) -> None:
    """The same random numbers, so the same tokens, but where sums end within rounding of one."""
    cpu, rows = torch.device("cpu"), 256
    logits = torch.randn(rows, vocab_size) * 3
    params = SamplingParams(**way)  # type: ignore[arg-type]
    ways = [Way(params, seed) for seed in range(rows)]
    positions = torch.arange(rows)

    def run(where: torch.device) -> torch.Tensor:
        settings = Settings.of(ways, vocab_size, where)
        return sample(logits.to(where), settings, positions.to(where)).cpu()

    assert int((run(device) != run(cpu)).sum()) <= (2 if params.temperature else 0)
