"""Each pass over memory that a layer needs beside products and attention, as one Triton kernel."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.paged.kernels.activation import gelu_tanh, silu

GATED_TILE = 1024  # values of one program


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False) -> Tensor:
    """See `backends.paged.kernels.rms_norm`."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows = (
        x if x.dim() == 3 else x.reshape(-1, 1, x.shape[-1])
    )  # heads of a product: not contiguous
    _launch_norm(rows, rows, out, out, weight, eps, unit_offset, adds=False)
    return out


def add_rms_norm(
    residual: Tensor, x: Tensor, weight: Tensor, eps: float, *, unit_offset: bool = False
) -> tuple[Tensor, Tensor]:
    """See `backends.paged.kernels.add_rms_norm`."""
    x, residual = x.contiguous(), residual.contiguous()
    total, out = torch.empty_like(residual), torch.empty_like(residual)
    _launch_norm(x[:, None], residual, total, out, weight, eps, unit_offset, adds=True)
    return total, out


def _launch_norm(
    x: Tensor,
    residual: Tensor,
    total: Tensor,
    out: Tensor,
    weight: Tensor,
    eps: float,
    unit_offset: bool,
    adds: bool,
) -> None:
    num_tokens, num_heads, width = x.shape
    padded = triton.next_power_of_2(width)
    _norm[(num_tokens * num_heads,)](
        x, residual, total, out, weight, x.stride(0), x.stride(1), eps,
        HEADS=num_heads, SIZE=width, WIDTH=padded, UNIT_OFFSET=unit_offset, ADDS=adds,
        num_warps=norm_warps(padded),
    )  # fmt: skip


def norm_warps(padded: int) -> int:
    """For a row of so many values."""
    return min(max(padded // 512, 1), 8)


def gated(x: Tensor, kind: str) -> Tensor:
    """Of `backends.paged.kernels.activate`: gated `silu` or `gelu_tanh`."""
    if kind not in ("silu", "gelu_tanh"):
        raise ValueError(f"no gated activation is called {kind}")
    x = x.contiguous()
    num_tokens, width = x.shape[0], x.shape[1] // 2
    out = x.new_empty((num_tokens, width))
    _gated[(num_tokens, triton.cdiv(width, GATED_TILE))](
        x, out, width, IS_SILU=kind == "silu", TILE=GATED_TILE, num_warps=4
    )
    return out


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
    """See `backends.paged.kernels.rotate_and_store`."""
    num_tokens, num_heads, dim = q.shape
    num_kv_heads, half = k.shape[1], cos.shape[-1]
    out = q.new_empty(q.shape)
    _rotate_and_store[(num_tokens, num_heads + num_kv_heads)](
        q, k, v, cos, sin, out, k_cache, v_cache, slots,
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
        k_cache.stride(0), k_cache.stride(1), k_cache.stride(2),
        v_cache.stride(0), v_cache.stride(1), v_cache.stride(2),
        HEADS=num_heads, DIM=dim, WIDTH=triton.next_power_of_2(dim), HALF=half,
        BLOCK_SIZE=k_cache.shape[1], num_warps=1,
    )  # fmt: skip
    return out


@triton.jit
def _norm(
    x, residual, total, out, weight, x_token, x_head, eps,
    HEADS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
    UNIT_OFFSET: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """Grid: rows."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, WIDTH)
    is_value = i < SIZE
    source = x + row // HEADS * x_token + row % HEADS * x_head + i
    values = tl.load(source, mask=is_value, other=0.0).to(tl.float32)
    if ADDS:
        values += tl.load(residual + row * SIZE + i, mask=is_value, other=0.0).to(tl.float32)
        rounded = values.to(total.dtype.element_ty)  # as the residual is kept, so it is normed
        tl.store(total + row * SIZE + i, rounded, mask=is_value)
        values = rounded.to(tl.float32)
    scale = tl.load(weight + i, mask=is_value, other=0.0).to(tl.float32)
    if UNIT_OFFSET:
        scale += 1.0
    normed = values * tl.rsqrt(tl.sum(values * values, 0) / SIZE + eps) * scale
    tl.store(out + row * SIZE + i, normed.to(out.dtype.element_ty), mask=is_value)


@triton.jit
def _gated(x, out, width, IS_SILU: tl.constexpr, TILE: tl.constexpr):
    """Grid: tokens, tiles of the width."""
    token = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * TILE + tl.arange(0, TILE)
    is_value = i < width
    gate = tl.load(x + token * 2 * width + i, mask=is_value, other=0.0).to(tl.float32)
    up = tl.load(x + token * 2 * width + width + i, mask=is_value, other=0.0).to(tl.float32)
    gate = silu(gate) if IS_SILU else gelu_tanh(gate)
    tl.store(out + token * width + i, (gate * up).to(out.dtype.element_ty), mask=is_value)


@triton.jit
def _rotate_and_store(
    q, k, v, cos, sin, out, k_cache, v_cache, slots,
    q_token, q_head, k_token, k_head, v_token, v_head,
    k_block, k_place, k_cache_head, v_block, v_place, v_cache_head,
    HEADS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, HALF: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """Grid: tokens, query heads and then key heads."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i = tl.arange(0, WIDTH)
    is_value, is_turned = i < DIM, i < 2 * HALF
    pair = i % HALF
    other = tl.where(i < HALF, i + HALF, i - HALF)
    c = tl.load(cos + token * HALF + pair, mask=is_turned, other=1.0).to(tl.float32)
    s = tl.load(sin + token * HALF + pair, mask=is_turned, other=0.0).to(tl.float32)
    s = tl.where(i < HALF, -s, s)
    if head < HEADS:
        source = q + token * q_token + head * q_head
        values = tl.load(source + i, mask=is_value, other=0.0).to(tl.float32)
        partners = tl.load(source + other, mask=is_turned & is_value, other=0.0).to(tl.float32)
        turned = (values * c + partners * s).to(out.dtype.element_ty)
        tl.store(out + (token * HEADS + head) * DIM + i, turned, mask=is_value)
    else:
        slot = tl.load(slots + token)
        if slot >= 0:
            head -= HEADS
            block, place = slot // BLOCK_SIZE, slot % BLOCK_SIZE
            source = k + token * k_token + head * k_head
            values = tl.load(source + i, mask=is_value, other=0.0).to(tl.float32)
            partners = tl.load(source + other, mask=is_turned & is_value, other=0.0).to(tl.float32)
            turned = (values * c + partners * s).to(k_cache.dtype.element_ty)
            k_target = k_cache + block * k_block + place * k_place + head * k_cache_head + i
            tl.store(k_target, turned, mask=is_value)
            value = tl.load(v + token * v_token + head * v_head + i, mask=is_value, other=0.0)
            v_target = v_cache + block * v_block + place * v_place + head * v_cache_head + i
            tl.store(v_target, value.to(v_cache.dtype.element_ty), mask=is_value)
