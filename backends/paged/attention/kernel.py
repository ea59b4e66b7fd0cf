"""Attention over the block table in Triton.

A program takes a tile of one sequence's tokens for all query heads that share a key head, so that each
key is read once for the group. Sequences that decode have small tiles and divide their context among
several programs, whose parts a second kernel joins; longer queries have tiles tall enough for the
tensor cores. Grids depend on shapes alone and lengths are read on the device: no launch waits for it,
and a captured graph holds for any lengths.

The block numbers of the tile to come are loaded one turn ahead. Loaded in the turn that needs them,
they keep the compiler from fetching keys and values in advance.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.paged.batch import Batch
from backends.paged.device import Gpu

LOG2_E = tl.constexpr(1.4426950408889634)
MIN_TILES = tl.constexpr(4)  # that a program of a divided context reads, where there are so many
MAX_SPLITS = tl.constexpr(64)
HOPPER = 9
READING_SHARED_MEMORY = (HOPPER, 10, 11)  # by wgmma and tcgen05; others have mma.sync, of registers
PROGRAMS = 4  # of one multiprocessor, to aim at when contexts are divided


@dataclass(frozen=True, slots=True)
class Shape:
    """How a program is laid out."""

    rows: int  # tokens times heads of the group
    tile: int  # keys of one turn
    num_warps: int
    num_stages: int


def decode_shape(group: int, dim: int, itemsize: int, gpu: Gpu) -> Shape:
    """Two programs at least fit on a multiprocessor, with a tile of keys and values for each stage. A
    tile has 16 keys at least: of heads of 256 in float32, one program fits on the smallest cards."""
    rows = max(16, triton.next_power_of_2(group))
    stages = 3
    per_key = 2 * triton.next_power_of_2(dim) * itemsize
    room = gpu.shared_memory // (2 * stages * per_key)
    if itemsize > 2:
        return Shape(rows, _power_of_2(room, 16, 32), num_warps=8, num_stages=stages)
    return Shape(rows, _power_of_2(room, 16, 64), num_warps=4, num_stages=stages)


def prefill_shape(group: int, dim: int, itemsize: int, gpu: Gpu) -> Shape:
    """As much as spills no registers, which is more where matrix instructions read shared memory."""
    least = triton.next_power_of_2(group)
    is_wide = triton.next_power_of_2(dim) > 128
    is_tall = gpu.generation in READING_SHARED_MEMORY
    if itemsize > 2:  # the tensor cores would round what is wanted in full
        stages = 2 if is_wide or is_tall else 3
        return Shape(max(16 if is_wide else 32, least), 16, num_warps=8, num_stages=stages)
    if is_wide:
        return Shape(max(128 if gpu.generation == HOPPER else 64, least), 32, 8, num_stages=2)
    return Shape(max(128, least), 64 if is_tall else 32, num_warps=8, num_stages=3)


def num_splits(num_sequences: int, num_kv_heads: int, max_context: int, tile: int, gpu: Gpu) -> int:
    """Programs that share one sequence's context; a power of two."""
    wanted = triton.cdiv(PROGRAMS * gpu.num_multiprocessors, num_sequences * num_kv_heads)
    useful = triton.cdiv(triton.cdiv(max_context, tile), MIN_TILES.value)
    return min(int(triton.next_power_of_2(max(1, min(wanted, useful)))), int(MAX_SPLITS.value))


def _power_of_2(most: int, lower: int, upper: int) -> int:
    """The largest that is no more than `most`, between two others."""
    return min(max(1 << (max(most, 1).bit_length() - 1), lower), upper)


def join_warps(width: int) -> int:
    return 4 if width <= 128 else 8


def store_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """See `backends.paged.attention.store_kv`."""
    num_tokens, num_kv_heads, dim = k.shape
    _store[(num_tokens,)](
        k, v, k_cache, v_cache, slots, k.stride(0), k.stride(1), v.stride(0), v.stride(1),
        k_cache.stride(0), k_cache.stride(1), k_cache.stride(2),
        v_cache.stride(0), v_cache.stride(1), v_cache.stride(2),
        HEADS=num_kv_heads, DIM=dim, WIDTH=triton.next_power_of_2(num_kv_heads * dim),
        BLOCK_SIZE=k_cache.shape[1], num_warps=4,
    )  # fmt: skip


def attend(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    batch: Batch,
    gpu: Gpu,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
) -> Tensor:
    """See `backends.paged.attention.attend`. Rows of padding, whose context is 0, come out as 0."""
    num_tokens, num_heads, dim = q.shape
    block_size, num_kv_heads = k_cache.shape[1:3]
    group, num_sequences = num_heads // num_kv_heads, len(batch.context_lengths)
    width = triton.next_power_of_2(dim)
    shape = decode_shape(group, dim, k_cache.element_size(), gpu)
    splits = num_splits(num_sequences, num_kv_heads, batch.max_context_length, shape.tile, gpu)
    out = q.new_empty(q.shape)

    def launch(
        tiles: int,
        splits: int,
        shape: Shape,
        is_decode: bool,
        parts: Tensor = out,  # of no use where nothing is divided, and always of one type
        sums: Tensor = out,
    ) -> None:
        _attend[(tiles, num_kv_heads, splits)](
            q, k_cache, v_cache, out, parts, sums, q if sinks is None else sinks,
            batch.query_starts, batch.context_lengths, batch.block_tables, num_sequences,
            scale, softcap, window, q.stride(0), q.stride(1), out.stride(0), out.stride(1),
            k_cache.stride(0), k_cache.stride(1), k_cache.stride(2),
            v_cache.stride(0), v_cache.stride(1), v_cache.stride(2), batch.block_tables.stride(0),
            GROUP=group, DIM=dim, WIDTH=width, BLOCK_SIZE=block_size,
            ROWS=shape.rows, TILE=shape.tile, IS_DECODE=is_decode, IS_SPLIT=splits > 1,
            HAS_WINDOW=window > 0, HAS_SOFTCAP=softcap > 0, HAS_SINKS=sinks is not None,
            UPCAST=needs_upcast(q.dtype), num_warps=shape.num_warps, num_stages=shape.num_stages,
        )  # fmt: skip

    if splits == 1:
        launch(num_sequences, 1, shape, True)
    else:
        parts = q.new_empty((num_sequences, num_heads, splits, width), dtype=torch.float32)
        sums = q.new_empty((num_sequences, num_heads, splits, 2), dtype=torch.float32)
        launch(num_sequences, splits, shape, True, parts, sums)
        _join[(num_sequences, num_heads)](
            parts, sums, out, batch.query_starts, batch.context_lengths, window, splits,
            out.stride(0), out.stride(1), DIM=dim, WIDTH=width, TILE=shape.tile,
            HAS_WINDOW=window > 0, num_warps=join_warps(width),
        )  # fmt: skip
    if batch.max_query_length > 1:
        tall = prefill_shape(group, dim, k_cache.element_size(), gpu)
        launch(num_tokens // (tall.rows // group) + num_sequences, 1, tall, False)
    return out


def needs_upcast(dtype: torch.dtype) -> bool:
    """Triton's interpreter gets products of bfloat16 wrong, without a word."""
    return dtype == torch.bfloat16 and bool(triton.knobs.runtime.interpret)


@triton.jit(do_not_specialize=["num_sequences", "window", "table_stride"])
def _attend(
    q, k_cache, v_cache, out, parts, sums, sinks,
    query_starts, context_lengths, block_tables, num_sequences,
    scale, softcap, window, q_token, q_head, out_token, out_head,
    k_block, k_token, k_head, v_block, v_token, v_head, table_stride,
    GROUP: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr, IS_DECODE: tl.constexpr, IS_SPLIT: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_SINKS: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """Grid: tiles of tokens, key heads, splits."""
    TOKENS: tl.constexpr = ROWS // GROUP  # of one tile
    kv_head = tl.program_id(1)
    sequence, first = tl.program_id(0), 0
    if not IS_DECODE:
        sequence, first = _find_tile(query_starts, num_sequences, tl.program_id(0), TOKENS)
    start = tl.load(query_starts + sequence)
    length = tl.load(query_starts + sequence + 1) - start
    if (length == 1) != IS_DECODE or first >= length:
        return
    context = tl.load(context_lengths + sequence)
    before = context - length  # tokens of the sequence that were stored in steps past

    rows = tl.arange(0, ROWS)
    token = first + rows // GROUP
    head = kv_head * GROUP + rows % GROUP
    is_row = (rows < TOKENS * GROUP) & (token < length)
    dims = tl.arange(0, WIDTH)
    is_dim = dims < DIM
    place = (start + token).to(tl.int64)
    queries = tl.load(
        q + place[:, None] * q_token + head[:, None] * q_head + dims,
        mask=is_row[:, None] & is_dim,
        other=0.0,
    )
    at = before + token

    last = tl.minimum(first + TOKENS, length) - 1
    begin, end = _tiles(before + first, before + last, window, TILE, HAS_WINDOW)
    if IS_SPLIT:
        share = _share(end - begin, tl.num_programs(2))
        begin += tl.program_id(2) * share
        end = tl.minimum(begin + share, end)
        if begin >= end:
            return

    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    if HAS_SINKS:  # noqa: SIM102  (the first is decided when it is compiled)
        if tl.program_id(2) == 0:
            best = tl.load(sinks + head, mask=is_row, other=0.0).to(tl.float32) * LOG2_E
            total += 1.0
    answer = tl.zeros([ROWS, WIDTH], tl.float32)

    table = block_tables + sequence.to(tl.int64) * table_stride
    offsets = tl.arange(0, TILE)
    keys = begin * TILE + offsets
    coming = tl.load(table + keys // BLOCK_SIZE, mask=keys < context, other=0)
    for tile in range(begin, end):
        blocks = coming.to(tl.int64)
        keys = tile * TILE + offsets
        ahead = keys + TILE
        coming = tl.load(table + ahead // BLOCK_SIZE, mask=ahead < context, other=0)
        is_key = keys < context
        within = keys % BLOCK_SIZE
        k = tl.load(
            k_cache
            + (blocks * k_block + within * k_token + kv_head * k_head)[None, :]
            + dims[:, None],
            mask=is_key[None, :] & is_dim[:, None],
            other=0.0,
        )
        # What was never stored may be NaN, and even no share of that is NaN.
        v = tl.load(
            v_cache + (blocks * v_block + within * v_token + kv_head * v_head)[:, None] + dims,
            mask=is_key[:, None] & is_dim,
            other=0.0,
        )
        scores = _dot(queries, k, UPCAST) * scale
        if HAS_SOFTCAP:
            scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)
        seen = (keys[None, :] <= at[:, None]) & is_row[:, None]
        if HAS_WINDOW:
            seen &= keys[None, :] > at[:, None] - window
        scores = tl.where(seen, scores * LOG2_E, float("-inf"))
        better = tl.maximum(best, tl.max(scores, 1))
        safe = tl.where(better == float("-inf"), 0.0, better)
        shrink = tl.exp2(best - safe)
        weights = tl.exp2(scores - safe[:, None])
        total = total * shrink + tl.sum(weights, 1)
        answer = answer * shrink[:, None] + _dot(weights.to(v.dtype), v, UPCAST)
        best = better

    if IS_SPLIT:
        part = (sequence * GROUP * tl.num_programs(1) + head) * tl.num_programs(2) + tl.program_id(
            2
        )
        part = part.to(tl.int64)
        tl.store(parts + part[:, None] * WIDTH + dims, answer, mask=is_row[:, None])
        tl.store(sums + part * 2, best, mask=is_row)
        tl.store(sums + part * 2 + 1, total, mask=is_row)
    else:
        answer = answer / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(
            out + place[:, None] * out_token + head[:, None] * out_head + dims,
            answer.to(out.dtype.element_ty),
            mask=is_row[:, None] & is_dim,
        )


@triton.jit(do_not_specialize=["window", "num_splits"])
def _join(
    parts, sums, out, query_starts, context_lengths, window, num_splits, out_token, out_head,
    DIM: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, HAS_WINDOW: tl.constexpr,
):  # fmt: skip
    """Grid: sequences, heads. Only the parts that were written are read."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    start = tl.load(query_starts + sequence)
    if tl.load(query_starts + sequence + 1) - start != 1:
        return
    at = tl.load(context_lengths + sequence) - 1
    begin, end = _tiles(at, at, window, TILE, HAS_WINDOW)
    share = _share(end - begin, num_splits)
    splits = tl.arange(0, MAX_SPLITS)
    is_part = splits * share < end - begin
    part = (sequence * tl.num_programs(1) + head).to(tl.int64) * num_splits + splits
    best = tl.load(sums + part * 2, mask=is_part, other=float("-inf"))
    total = tl.load(sums + part * 2 + 1, mask=is_part, other=0.0)
    top = tl.max(best, 0)
    weights = tl.exp2(best - tl.where(top == float("-inf"), 0.0, top))
    total = tl.sum(total * weights, 0)
    dims = tl.arange(0, WIDTH)
    answer = tl.load(parts + part[:, None] * WIDTH + dims, mask=is_part[:, None], other=0.0)
    answer = tl.sum(answer * weights[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    target = out + start.to(tl.int64) * out_token + head * out_head + dims
    tl.store(target, answer.to(out.dtype.element_ty), mask=dims < DIM)


@triton.jit
def _store(
    k, v, k_cache, v_cache, slots, k_token, k_head, v_token, v_head,
    k_block, k_place, k_cache_head, v_block, v_place, v_cache_head,
    HEADS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """Grid: tokens."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    if slot < 0:
        return
    block, place = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    i = tl.arange(0, WIDTH)
    head, dim, is_value = i // DIM, i % DIM, i < HEADS * DIM
    key = tl.load(k + token * k_token + head * k_head + dim, mask=is_value)
    value = tl.load(v + token * v_token + head * v_head + dim, mask=is_value)
    k_target = k_cache + block * k_block + place * k_place + head * k_cache_head + dim
    v_target = v_cache + block * v_block + place * v_place + head * v_cache_head + dim
    tl.store(k_target, key.to(k_cache.dtype.element_ty), mask=is_value)
    tl.store(v_target, value.to(v_cache.dtype.element_ty), mask=is_value)


@triton.jit
def _find_tile(query_starts, num_sequences, tile, TOKENS: tl.constexpr):
    """The sequence that a tile belongs to, and the tile's first token in it. Sequence i has its tiles
    from query_starts[i] // TOKENS + i on: never too few, at times one that is empty."""
    low, high = tile * 0, num_sequences
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(query_starts + middle) // TOKENS + middle <= tile:
            low = middle
        else:
            high = middle
    return low, (tile - tl.load(query_starts + low) // TOKENS - low) * TOKENS


@triton.jit
def _tiles(first, last, window, TILE: tl.constexpr, HAS_WINDOW: tl.constexpr):
    """The first tile of keys that queries at positions first..last see, and the one after the last."""
    begin = first * 0
    if HAS_WINDOW:
        begin = tl.maximum(first - window + 1, 0) // TILE
    return begin, (last + TILE) // TILE  # none for a sequence that is padding, whose last is -1


@triton.jit
def _share(tiles, splits):
    """Tiles for each of `splits` programs; the last of them may be left with none."""
    return tl.maximum(tl.cdiv(tiles, splits), MIN_TILES)


@triton.jit
def _dot(a, b, UPCAST: tl.constexpr):
    if UPCAST:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision="ieee")
