"""What a layer does beside products and attention: fused in Triton on a GPU, torch everywhere else."""

from __future__ import annotations

from torch import Tensor

from backends.paged.device import runs_triton
from backends.paged.kernels import reference


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


def gated(x: Tensor, kind: str) -> Tensor:
    """The activation of the first half of x, [T, 2 * width], times the second half: [T, width].

    `kind` is `silu` or `gelu_tanh`.
    """
    if runs_triton(x):
        from backends.paged.kernels import fused

        return fused.gated(x, kind)
    return reference.gated(x, kind)


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
