"""Products with the weights of experts in Triton.

A program takes a tile of one expert's pairs and a tile of what that expert gives. How many tiles an
expert has, and so which expert a program works for, is found on the device; the grid is as large as it
can become, by shapes alone. So no launch waits for the device, and a captured graph holds for any routes.

Tiles of an expert run beside each other with the same columns: weights come from memory once.

Shapes follow what vLLM's tuning found for H200 and RTX 4090 (its fused_moe/configs).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from backends.paged.attention.kernel import needs_upcast
from backends.paged.device import Gpu
from backends.paged.kernels.activation import clamped_swiglu, gelu_tanh, silu
from backends.paged.kernels.routes import Routes
from backends.paged.spec import Activation

SUM_TILE = 1024  # values of one program
KINDS = ("silu", "gelu_tanh", "clamped_swiglu")


@dataclass(frozen=True, slots=True)
class Shape:
    """How a program is laid out."""

    rows: int  # pairs
    columns: int  # rows of the weights, gate and up together
    depth: int  # values of one turn
    num_warps: int
    num_stages: int

    @property
    def stored(self) -> int:
        """Values in shared memory: of the turns that are fetched in advance."""
        return (self.rows + self.columns) * self.depth * self.num_stages


def shape_for(num_pairs: int, count: int, itemsize: int, gpu: Gpu) -> Shape:
    """One of two, so that a worker can compile both before it is ready."""
    is_few = num_pairs <= 16 * count  # pairs of an expert fill no more, and weights take the time
    if itemsize > 2:  # without tensor cores, which would round what is wanted in full
        if is_few:
            return Shape(16, 64, 32, num_warps=4, num_stages=3)
        return Shape(64, 64, 32, num_warps=8, num_stages=3)
    if is_few:
        return Shape(16, 64, 128, num_warps=4, num_stages=4)
    tall = Shape(128, 256, 64, num_warps=8, num_stages=4)
    if tall.stored * itemsize <= gpu.shared_memory:  # Hopper, and Blackwell for data centres
        return tall
    return Shape(64, 128, 64, num_warps=8, num_stages=3)


def expert_products(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    routes: Routes,
    gpu: Gpu,
    activation: Activation | None = None,
) -> Tensor:
    """See `backends.paged.kernels.expert_products`."""
    kind = _kind(activation)
    limit, alpha = (activation.limit, activation.alpha) if activation else (0.0, 0.0)
    count, rows, depth = weight.shape
    width = rows // 2 if kind else rows
    num_pairs = len(routes.order)
    shape = shape_for(num_pairs, count, x.element_size(), gpu)
    out = x.new_empty((num_pairs, width))
    tiles = min(num_pairs, num_pairs // shape.rows + count)
    _products[(tiles, triton.cdiv(rows, shape.columns))](
        x.contiguous(), weight, weight if bias is None else bias, out,
        routes.order, routes.ends, limit, alpha,
        COUNT=count, EXPERTS=triton.next_power_of_2(count), SHARING=num_pairs // len(x),
        ROWS=rows, DEPTH=depth, TILE=shape.rows, COLUMNS=shape.columns, TURN=shape.depth,
        HAS_BIAS=bias is not None, KIND=kind, UPCAST=needs_upcast(x.dtype),
        num_warps=shape.num_warps, num_stages=shape.num_stages,
    )  # fmt: skip
    return out


def combine(by_pair: Tensor, shares: Tensor) -> Tensor:
    """See `backends.paged.kernels.combine`."""
    num_tokens, per_token = shares.shape
    width = by_pair.shape[1]
    out = by_pair.new_empty((num_tokens, width))
    _combine[(num_tokens, triton.cdiv(width, SUM_TILE))](
        by_pair, shares, out, WIDTH=width, PER_TOKEN=per_token, TILE=SUM_TILE, num_warps=4
    )
    return out


def _kind(activation: Activation | None) -> str:
    """What the kernel calls it; empty: none."""
    if activation is None:
        return ""
    if not activation.is_gated or activation.kind not in KINDS:
        raise ValueError(f"no gated activation of experts is called {activation.kind}")
    return activation.kind


@triton.jit
def _products(
    x, weight, bias, out, order, ends, limit, alpha,
    COUNT: tl.constexpr, EXPERTS: tl.constexpr, SHARING: tl.constexpr,
    ROWS: tl.constexpr, DEPTH: tl.constexpr,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, TURN: tl.constexpr,
    HAS_BIAS: tl.constexpr, KIND: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Grid: tiles of pairs, tiles of columns. `SHARING` pairs in a row read the same row of x.

    Gated, column 2i is gate i and column 2i + 1 is up i, so that one thread has both.
    """
    expert, first, end = _find_tile(ends, tl.program_id(0), COUNT, EXPERTS, TILE)
    if expert >= COUNT:
        return
    place = first + tl.arange(0, TILE)
    is_pair = place < end
    pair = tl.load(order + place, mask=is_pair, other=0).to(tl.int64)

    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = column < ROWS
    row = column
    if KIND != "":
        row = column // 2 + column % 2 * (ROWS // 2)
    expert = expert.to(tl.int64)
    turn = tl.arange(0, TURN)
    x_from = x + (pair // SHARING * DEPTH)[:, None] + turn
    weight_from = weight + expert * (ROWS * DEPTH) + row[None, :] * DEPTH + turn[:, None]
    total = tl.zeros([TILE, COLUMNS], tl.float32)
    for start in range(0, DEPTH, TURN):
        x_mask, weight_mask = is_pair[:, None], is_column[None, :]
        if DEPTH % TURN:
            x_mask &= turn < DEPTH - start
            weight_mask &= turn[:, None] < DEPTH - start
        a = tl.load(x_from + start, mask=x_mask, other=0.0)
        b = tl.load(weight_from + start, mask=weight_mask, other=0.0)
        if UPCAST:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision="ieee")

    if HAS_BIAS:
        added = tl.load(bias + expert * ROWS + row, mask=is_column, other=0.0)
        total += added.to(tl.float32)
    width, value = ROWS, total
    if KIND != "":
        gate, up = tl.split(total.reshape([TILE, COLUMNS // 2, 2]))
        if KIND == "clamped_swiglu":
            value = clamped_swiglu(gate, up, limit, alpha)
        elif KIND == "silu":
            value = silu(gate) * up
        else:
            value = gelu_tanh(gate) * up
        width = ROWS // 2
        column = tl.program_id(1) * (COLUMNS // 2) + tl.arange(0, COLUMNS // 2)
    target = out + pair[:, None] * width + column
    mask = is_pair[:, None] & (column < width)
    tl.store(target, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _find_tile(ends, tile, COUNT: tl.constexpr, EXPERTS: tl.constexpr, TILE: tl.constexpr):
    """The expert that a tile belongs to (COUNT or more: none), its first pair, and where the expert's
    pairs end."""
    expert = tl.arange(0, EXPERTS)
    is_expert = expert < COUNT
    end = tl.load(ends + expert, mask=is_expert, other=0)
    begin = tl.load(ends + expert - 1, mask=is_expert & (expert > 0), other=0)
    tiles = (end - begin + TILE - 1) // TILE
    through = tl.cumsum(tiles, 0)
    mine = tl.sum((through <= tile).to(tl.int32), 0)
    is_mine = expert == mine
    before = tl.sum(tl.where(is_mine, through - tiles, 0), 0)
    first = tl.sum(tl.where(is_mine, begin, 0), 0) + (tile - before) * TILE
    return mine, first, tl.sum(tl.where(is_mine, end, 0), 0)


@triton.jit
def _combine(
    by_pair, shares, out, WIDTH: tl.constexpr, PER_TOKEN: tl.constexpr, TILE: tl.constexpr
):
    """Grid: tokens, tiles of the width."""
    token = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * TILE + tl.arange(0, TILE)
    is_value = i < WIDTH
    total = tl.zeros([TILE], tl.float32)
    for j in tl.static_range(PER_TOKEN):
        pair = token * PER_TOKEN + j
        value = tl.load(by_pair + pair * WIDTH + i, mask=is_value, other=0.0).to(tl.float32)
        total += value * tl.load(shares + pair).to(tl.float32)
    tl.store(out + token * WIDTH + i, total.to(out.dtype.element_ty), mask=is_value)
