"""The fused kernels' work in plain torch: what they are tested against, and what a CPU runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.paged.attention.reference import store_kv
from backends.paged.kernels.routes import Routes
from backends.paged.products import product
from backends.paged.spec import Activation

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu2": lambda x: F.relu(x).square(),
}


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False) -> Tensor:
    if not unit_offset:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x.float(), weight.shape, weight.float() + 1.0, eps).to(x.dtype)


def add_rms_norm(
    residual: Tensor, x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False
) -> tuple[Tensor, Tensor]:
    total = residual + x
    return total, rms_norm(total, weight, eps, unit_offset=unit_offset)


def activate(x: Tensor, activation: Activation) -> Tensor:
    if not activation.is_gated:
        return ACTIVATIONS[activation.kind](x)
    gate, up = x.chunk(2, dim=-1)
    if activation.kind == "clamped_swiglu":
        gate = gate.clamp(max=activation.limit)
        up = up.clamp(-activation.limit, activation.limit)
        return gate * torch.sigmoid(gate * activation.alpha) * (up + 1)
    return ACTIVATIONS[activation.kind](gate) * up


def route(scores: Tensor, per_token: int, *, normalized: bool) -> Routes:
    wide = scores.float()
    if normalized:  # a softmax over the chosen ones is that over all, made to sum to 1
        best, chosen = wide.topk(per_token, dim=-1)
        shares = best.softmax(-1)
    else:
        shares, chosen = wide.softmax(-1).topk(per_token, dim=-1)
    experts, order = chosen.flatten().sort(stable=True)
    each = torch.arange(scores.shape[1], device=scores.device)
    ends = torch.searchsorted(experts, each, right=True, out_int32=True)
    return Routes(shares.to(scores.dtype), order.int(), ends)


def expert_products(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    routes: Routes,
    activation: Activation | None = None,
) -> Tensor:
    order = routes.order.long()
    rows = x[order // (len(order) // len(x))]
    by_expert = rows.new_empty(len(order), weight.shape[1])
    start = 0
    for expert, end in enumerate(routes.ends.tolist()):
        if end > start:
            added = None if bias is None else bias[expert]
            by_expert[start:end] = product(rows[start:end], weight[expert], added)
        start = end
    if activation is not None:
        by_expert = activate(by_expert, activation)
    return torch.empty_like(by_expert).index_copy_(0, order, by_expert)


def combine(by_pair: Tensor, shares: Tensor) -> Tensor:
    return (by_pair.view(*shares.shape, -1) * shares[..., None]).sum(1)


def rotate_and_store(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
) -> Tensor:
    num_heads = q.shape[1]
    turned = rotated(torch.cat((q, k), dim=1), cos, sin)
    store_kv(turned[:, num_heads:], v, k_cache, v_cache, slots)
    return turned[:, :num_heads]


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    parts = [
        torch.addcmul(first * cos, second, sin, value=-1),
        torch.addcmul(second * cos, first, sin),
    ]
    if 2 * half < x.shape[-1]:
        parts.append(x[..., 2 * half :])
    return torch.cat(parts, dim=-1)
