"""The kernels of mixtures of experts, and whole mixtures with every kernel there is, in Triton's interpreter.

Not collected by itself: `test_interpreted` runs this file.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import triton
from torch import Tensor

from backends.paged import attention, kernels
from backends.paged.kernels import grouped, reference, routing
from backends.paged.kernels.routes import Routes
from backends.paged.loader import load
from backends.paged.spec import Activation
from tests.paged.kernels.cards import CARDS
from tests.paged.kernels.world import error

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

LIMITS = {torch.float32: 3e-6, torch.float16: 3e-3}
DTYPES = list(LIMITS)
GPUS = {name: CARDS[name].gpu for name in ("RTX 4090", "H200")}
KINDS = [
    None,
    Activation("silu"),
    Activation("gelu_tanh"),
    Activation("clamped_swiglu", limit=1.5, alpha=1.7),
]
CLAMPED = KINDS[-1]


def test_this_is_the_interpreter() -> None:
    assert triton.knobs.runtime.interpret


def routed(chosen: Tensor, count: int) -> Routes:
    """Where the tokens go whose experts are `chosen` [T, per_token]."""
    experts, order = chosen.flatten().sort(stable=True)
    ends = torch.searchsorted(experts, torch.arange(count), right=True, out_int32=True)
    return Routes(torch.rand(chosen.shape), order.int(), ends)


def picked(num_tokens: int, count: int, per_token: int) -> Tensor:
    return torch.rand(num_tokens, count, generator=seeded()).topk(per_token).indices


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def between_nans(*shape: int, dtype: torch.dtype) -> Tensor:
    """Random values with NaN in the memory before and after them."""
    around = torch.full((shape[0] + 2, *shape[1:]), float("nan"), dtype=dtype)
    around[1:-1] = (torch.randn(shape, generator=seeded()) * shape[-1] ** -0.5).to(dtype)
    return around[1:-1]


def plainly(
    x: Tensor, weight: Tensor, bias: Tensor | None, chosen: Tensor, activation: Activation | None
) -> Tensor:
    """In float64, pair by pair."""
    rows = x.double().repeat_interleave(chosen.numel() // len(x), 0)
    found = []
    for row, expert in zip(rows, chosen.flatten(), strict=True):
        value = weight[expert].double() @ row
        found.append(value if bias is None else value + bias[expert].double())
    value = torch.stack(found)
    return value if activation is None else reference.activate(value, activation)


CHOSEN = {
    "few, experts left out": (picked(7, 9, 2), 9),
    "one token": (picked(1, 6, 3), 6),
    "one expert has all, in several tiles": (torch.full((37, 1), 3), 5),
    "the last one has all": (torch.full((5, 1), 4), 5),
    "many": (picked(50, 3, 2), 3),
    "many, all for one": (torch.full((130, 1), 1), 3),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", [None, CLAMPED], ids=str)
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("case", CHOSEN)
def test_products(case: str, gpu: str, activation: Activation | None, dtype: torch.dtype) -> None:
    chosen, count = CHOSEN[case]
    x = between_nans(len(chosen), 200, dtype=dtype)
    weight, bias = between_nans(count, 100, 200, dtype=dtype), between_nans(count, 100, dtype=dtype)
    found = grouped.expert_products(x, weight, bias, routed(chosen, count), GPUS[gpu], activation)
    assert error(found, plainly(x, weight, bias, chosen, activation)) < LIMITS[dtype]


@pytest.mark.parametrize("activation", KINDS, ids=str)
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_row_for_each_pair(activation: Activation | None, has_bias: bool) -> None:
    chosen = picked(11, 6, 2)
    x, weight = (
        between_nans(22, 128, dtype=torch.float32),
        between_nans(6, 256, 128, dtype=torch.float32),
    )
    bias = between_nans(6, 256, dtype=torch.float32) if has_bias else None
    routes = routed(chosen, 6)
    found = grouped.expert_products(x, weight, bias, routes, GPUS["H200"], activation)
    assert error(found, plainly(x, weight, bias, chosen, activation)) < 3e-6
    assert error(found, reference.expert_products(x, weight, bias, routes, activation)) < 3e-6


def test_bfloat16_is_read_and_written() -> None:
    chosen = picked(7, 4, 2)
    x, weight = (
        between_nans(7, 96, dtype=torch.bfloat16),
        between_nans(4, 64, 96, dtype=torch.bfloat16),
    )
    found = grouped.expert_products(x, weight, None, routed(chosen, 4), GPUS["H200"])
    assert error(found, plainly(x, weight, None, chosen, None)) < 2e-2


def test_an_activation_that_it_does_not_know_is_refused() -> None:
    chosen = picked(2, 4, 2)
    x, weight = torch.zeros(2, 16), torch.zeros(4, 32, 16)
    for activation in (Activation("relu2"), Activation("silu", is_gated=False)):
        with pytest.raises(ValueError, match=activation.kind):
            grouped.expert_products(x, weight, None, routed(chosen, 4), GPUS["H200"], activation)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("sizes", [(1, 128, 8), (16, 5, 2), (17, 5, 2), (300, 130, 3), (3, 1, 1)])
def test_routes(sizes: tuple[int, int, int], normalized: bool) -> None:
    num_tokens, count, per_token = sizes
    scores = torch.randn(num_tokens, count, generator=seeded())
    found = routing.route(scores, per_token, normalized=normalized)
    wanted = reference.route(scores, per_token, normalized=normalized)
    assert torch.equal(found.order, wanted.order)
    assert torch.equal(found.ends, wanted.ends)
    assert error(found.shares, wanted.shares) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_routes_of_half_precision(dtype: torch.dtype) -> None:
    each = [torch.randperm(40, generator=seeded()) for _ in range(50)]
    scores = (torch.stack(each) - 20).to(dtype)
    found = routing.route(scores, 4, normalized=True)
    wanted = reference.route(scores, 4, normalized=True)
    assert torch.equal(found.order, wanted.order)
    assert found.shares.dtype == dtype
    assert error(found.shares, wanted.shares) < 4e-3


@pytest.mark.parametrize("num_tokens", [3, 70])
def test_equal_scores_go_to_the_first_experts(num_tokens: int) -> None:
    found = routing.route(torch.zeros(num_tokens, 6), 2, normalized=True)
    pairs = torch.arange(2 * num_tokens, dtype=torch.int32)
    assert torch.equal(found.order, torch.cat((pairs[::2], pairs[1::2])))
    assert found.ends.tolist() == [num_tokens] + [2 * num_tokens] * 5
    assert torch.equal(found.shares, torch.full((num_tokens, 2), 0.5))


@pytest.mark.parametrize("bits", [0x7FC00000, -1, -0x800000, 0x7F800000], ids=hex)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_scores_that_are_no_numbers_leave_every_pair_its_place(bits: int) -> None:
    value = torch.tensor(bits, dtype=torch.int32).view(torch.float32)  # NaN twice, then infinities
    scores = torch.randn(70, 6)
    scores[3] = value
    scores[5, 1:] = value
    found = routing.route(scores, 3, normalized=False)
    assert torch.equal(found.order.sort().values, torch.arange(210, dtype=torch.int32))
    assert found.ends[-1] == 210
    assert bool((found.ends.diff() >= 0).all())
    assert bool(found.shares[6:].isfinite().all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_combine(dtype: torch.dtype) -> None:
    by_pair, shares = torch.randn(9, 1100).to(dtype), torch.rand(3, 3).to(dtype)
    found = grouped.combine(by_pair, shares)
    assert error(found, reference.combine(by_pair, shares)) < 2 * LIMITS[dtype]


MIXTURES = {
    "qwen3_moe": (
        "qwen3_moe",
        {
            "head_dim": 16,
            "num_experts": 5,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 40,
            "norm_topk_prob": False,
        },
    ),
    "gpt_oss": (
        "gpt_oss",
        {
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 12,
        },
    ),
}


@pytest.mark.parametrize("case", MIXTURES)
def test_mixtures_compute_what_transformers_does(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", reason="transformers is what models are compared with")
    from tests.paged.models import oracle
    from tests.paged.models.agreement import agree

    for module in (attention, kernels):
        monkeypatch.setattr(module, "runs_triton", lambda tensor: True)
        monkeypatch.setattr(module, "gpu_of", lambda device: GPUS["RTX 4090"])
    model_type, settings = MIXTURES[case]
    model = oracle.save(tmp_path, model_type, num_hidden_layers=2, **settings)
    agree(model, load(str(tmp_path), "float32", "cpu")[1], length=20)
