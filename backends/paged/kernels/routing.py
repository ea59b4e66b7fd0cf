"""From a router's scores to `Routes` in Triton: one launch for few tokens, two for many.

A tile of tokens picks its experts and counts them. Where its pairs go in the order follows from the
counts of all tiles, which a second launch reads; a tile that is alone needs none. Nothing is added by
atomics, so that the same scores give the same order.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from backends.paged.kernels.routes import Routes

TILE_VALUES = 2048  # tokens times experts of one program
MAX_TOKENS = 16  # of one program
NUM_WARPS = 4
TAKEN = tl.constexpr(-(1 << 31))  # ranks below every score


def sizes_for(count: int, per_token: int) -> dict[str, int]:
    """Of the tile that a program takes."""
    width = triton.next_power_of_2(count)
    return {
        "COUNT": count,
        "WIDTH": width,
        "PER_TOKEN": per_token,
        "PADDED": triton.next_power_of_2(per_token),
        "TOKENS": min(MAX_TOKENS, max(TILE_VALUES // width, 1)),
    }


def route(scores: Tensor, per_token: int, *, normalized: bool) -> Routes:
    """See `backends.paged.kernels.route`."""
    scores = scores.contiguous()
    num_tokens, count = scores.shape
    sizes = sizes_for(count, per_token)
    tiles = triton.cdiv(num_tokens, sizes["TOKENS"])
    shares = scores.new_empty((num_tokens, per_token))
    order = scores.new_empty(num_tokens * per_token, dtype=torch.int32)
    ends = scores.new_empty(count, dtype=torch.int32)
    picks, counts = order, ends
    if tiles > 1:
        picks, counts = torch.empty_like(order), ends.new_empty((tiles, count))
    _choose[(tiles,)](
        scores, shares, picks, counts, order, ends, num_tokens,
        NORMALIZED=normalized, IS_ALONE=tiles == 1, **sizes, num_warps=NUM_WARPS,
    )  # fmt: skip
    if tiles > 1:
        _order[(tiles,)](
            picks, counts, order, ends, num_tokens, tiles, **sizes, num_warps=NUM_WARPS
        )
    return Routes(shares, order, ends)


@triton.jit(do_not_specialize=["num_tokens"])
def _choose(
    scores, shares, picks, counts, order, ends, num_tokens,
    COUNT: tl.constexpr, WIDTH: tl.constexpr, PER_TOKEN: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, NORMALIZED: tl.constexpr, IS_ALONE: tl.constexpr,
):  # fmt: skip
    """Grid: tiles of tokens."""
    tile = tl.program_id(0)
    token = tile * TOKENS + tl.arange(0, TOKENS)
    expert, column = tl.arange(0, WIDTH), tl.arange(0, PADDED)
    is_token, is_expert = token < num_tokens, expert < COUNT
    some_token = tl.minimum(token, num_tokens - 1)  # rows that are left over read the last one
    score = tl.load(
        scores + some_token[:, None] * COUNT + expert, mask=is_expert, other=float("-inf")
    ).to(tl.float32)
    # Whole numbers in the order of the scores: NaN has its place too, so that a sick model still picks
    # experts that exist, each once.
    rank = score.to(tl.int32, bitcast=True)
    rank = tl.maximum(rank ^ ((rank >> 31) & 0x7FFFFFFF), TAKEN + 1)
    rank = tl.where(is_expert, rank, TAKEN)
    pick = tl.zeros([TOKENS, PADDED], tl.int32)
    for i in range(PER_TOKEN):
        found = tl.argmax(rank, 1)[:, None]
        pick = tl.where(column == i, found, pick)
        rank = tl.where(expert == found, TAKEN, rank)

    best = tl.where(column < PER_TOKEN, tl.gather(score, pick, 1), float("-inf"))
    top = tl.max(best, 1)[:, None]
    weight = tl.exp(best - top)
    total = tl.sum(weight, 1) if NORMALIZED else tl.sum(tl.exp(score - top), 1)
    share = (weight / total[:, None]).to(shares.dtype.element_ty)
    pair = token[:, None] * PER_TOKEN + column
    is_pair = is_token[:, None] & (column < PER_TOKEN)
    tl.store(shares + pair, share, mask=is_pair)

    taken = ((rank == TAKEN) & is_expert & is_token[:, None]).to(tl.int32)
    here = tl.sum(taken, 0)
    if IS_ALONE:
        end = tl.cumsum(here, 0)
        tl.store(ends + expert, end, mask=is_expert)
        _put(order, pair, is_pair, pick, taken, end - here)
    else:
        tl.store(picks + pair, pick, mask=is_pair)
        tl.store(counts + tile * COUNT + expert, here, mask=is_expert)


@triton.jit(do_not_specialize=["num_tokens", "tiles"])
def _order(
    picks, counts, order, ends, num_tokens, tiles,
    COUNT: tl.constexpr, WIDTH: tl.constexpr, PER_TOKEN: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    """Grid: tiles of tokens."""
    tile = tl.program_id(0)
    expert, column = tl.arange(0, WIDTH), tl.arange(0, PADDED)
    is_expert = expert < COUNT
    before, total = tl.zeros([WIDTH], tl.int32), tl.zeros([WIDTH], tl.int32)
    for first in range(0, tiles, TOKENS):
        other = first + tl.arange(0, TOKENS)[:, None]
        count = tl.load(counts + other * COUNT + expert, mask=(other < tiles) & is_expert, other=0)
        total += tl.sum(count, 0)
        before += tl.sum(tl.where(other < tile, count, 0), 0)
    end = tl.cumsum(total, 0)
    if tile == 0:
        tl.store(ends + expert, end, mask=is_expert)

    token = tile * TOKENS + tl.arange(0, TOKENS)
    pair = token[:, None] * PER_TOKEN + column
    is_pair = (token < num_tokens)[:, None] & (column < PER_TOKEN)
    pick = tl.load(picks + pair, mask=is_pair, other=0)
    taken = tl.zeros([TOKENS, WIDTH], tl.int32)  # rows that are left over come last and move none
    for i in range(PER_TOKEN):
        found = tl.sum(tl.where(column == i, pick, 0), 1)[:, None]
        taken += (expert == found).to(tl.int32)
    _put(order, pair, is_pair, pick, taken, end - total + before)


@triton.jit
def _put(order, pair, is_pair, pick, taken, begin):
    """Write a tile's pairs where they belong; those of expert e start at `begin[e]`."""
    place = begin[None, :] + tl.cumsum(taken, 0) - taken
    tl.store(order + tl.gather(place, pick, 1), pair, mask=is_pair)
