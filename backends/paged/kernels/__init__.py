"""What a layer does beside products and attention: fused in Triton on a GPU, torch everywhere else."""

from __future__ import annotations

from torch import Tensor

from backends.paged.device import gpu_of, runs_triton
from backends.paged.kernels import reference
from backends.paged.kernels.routes import Routes
from backends.paged.spec import Activation


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False) -> Tensor:
    """RMS norm over the last dimension, in float32; `unit_offset`: weights stand for 1 + weight."""
    if runs_triton(x):
        from backends.paged.kernels import fused

        return fused.rms_norm(x, weight, eps, unit_offset=unit_offset)
    return reference.rms_norm(x, weight, eps, unit_offset=unit_offset)


def add_rms_norm(
    residual: Tensor, x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False
) -> tuple[Tensor, Tensor]:
    """residual + x, and its norm. Both [T, width], contiguous."""
    if runs_triton(x):
        from backends.paged.kernels import fused

        return fused.add_rms_norm(residual, x, weight, eps, unit_offset=unit_offset)
    return reference.add_rms_norm(residual, x, weight, eps, unit_offset=unit_offset)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """What follows the first product of an MLP; gated, x, [T, 2 * width], holds gate and up one after the
    other and becomes [T, width]."""
    if runs_triton(x) and activation.is_gated and activation.kind in ("silu", "gelu_tanh"):
        from backends.paged.kernels import fused

        return fused.gated(x, activation.kind)
    return reference.activate(x, activation)


def route(scores: Tensor, per_token: int, *, normalized: bool) -> Routes:
    """The `per_token` experts of each token that a router scores highest, out of `scores` [T, count].

    Shares are a softmax over all scores, in float32; `normalized`: over those of the chosen experts.
    """
    if runs_triton(scores):
        from backends.paged.kernels import routing

        return routing.route(scores, per_token, normalized=normalized)
    return reference.route(scores, per_token, normalized=normalized)


def expert_products(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    routes: Routes,
    activation: Activation | None = None,
) -> Tensor:
    """Each pair's row of x with its expert's `weight` [count, out, in] and `bias` [count, out], and
    `activation` after it: [pairs, out], half as wide where that is gated.

    x [rows, in] has a row for each pair or for each token, the same one for all pairs of a token.
    """
    if runs_triton(x):
        from backends.paged.kernels import grouped

        return grouped.expert_products(x, weight, bias, routes, gpu_of(x.device), activation)
    return reference.expert_products(x, weight, bias, routes, activation)


def combine(by_pair: Tensor, shares: Tensor) -> Tensor:
    """The sum over each token's pairs, [T * per_token, width], by their `shares` [T, per_token]: [T, width].

    In a fixed order, so that a batch computed twice gives the same bits.
    """
    if runs_triton(by_pair):
        from backends.paged.kernels import grouped

        return grouped.combine(by_pair, shares)
    return reference.combine(by_pair, shares)


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
    """Turn q, [T, num_heads, head_dim], and k by `cos` and `sin`, [T, 1, half], in halves of the first
    2 * half dimensions; store k and v, [T, num_kv_heads, head_dim], at `slots`; give back q."""
    if runs_triton(q):
        from backends.paged.kernels import fused

        return fused.rotate_and_store(q, k, v, cos, sin, k_cache, v_cache, slots)
    return reference.rotate_and_store(q, k, v, cos, sin, k_cache, v_cache, slots)
