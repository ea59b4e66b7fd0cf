"""The fused kernels' work in plain torch: what they are tested against, and what a CPU runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.paged.attention.reference import store_kv


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False) -> Tensor:
    if not unit_offset:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x.float(), weight.shape, weight.float() + 1.0, eps).to(x.dtype)


def add_rms_norm(
    residual: Tensor, x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False
) -> tuple[Tensor, Tensor]:
    total = residual + x
    return total, rms_norm(total, weight, eps, unit_offset=unit_offset)


def gated(x: Tensor, kind: str) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    if kind == "silu":
        return F.silu(gate) * up
    if kind == "gelu_tanh":
        return F.gelu(gate, approximate="tanh") * up
    raise ValueError(f"no gated activation is called {kind}")


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
