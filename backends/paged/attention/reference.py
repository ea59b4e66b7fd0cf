"""Attention over the block table in plain torch: what the kernel is tested against, and what a CPU runs.

Sequences that decode are computed together; longer queries by tiles of rows, one sequence at a time.
Keys stand right-aligned, so that a window costs no more than its own length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from backends.paged.batch import Batch

SHORT = 256  # decodes up to this context are padded to one length, others to twice theirs at most
TILE = 256  # rows of one sequence whose scores stand in memory at once


def store_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    stored = slots >= 0
    if not bool(stored.all()):
        k, v, slots = k[stored], v[stored], slots[stored]
    block_size = k_cache.shape[1]
    k_rows, stride = _token_rows(k_cache)
    v_rows, _ = _token_rows(v_cache)
    places = slots + slots // block_size * (stride - block_size)
    for new, rows in ((k, k_rows), (v, v_rows)):
        rows.index_copy_(0, places, new.reshape(-1, rows.shape[1]).to(rows.dtype))


def attend(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    batch: Batch,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
) -> Tensor:
    _, block_size, num_kv_heads, _ = k_cache.shape
    k_rows, stride = _token_rows(k_cache)
    v_rows, _ = _token_rows(v_cache)
    group = q.shape[1] // num_kv_heads
    pieces = _plan(batch, window, group, stride, block_size, q.dtype)
    if pieces and pieces[0].is_all:
        return _attend_piece(q, pieces[0], k_rows, v_rows, num_kv_heads, scale, softcap, sinks)
    out = torch.zeros_like(q)
    for piece in pieces:
        queries = q.index_select(0, piece.rows)
        answer = _attend_piece(queries, piece, k_rows, v_rows, num_kv_heads, scale, softcap, sinks)
        out.index_copy_(0, piece.rows, answer)
    return out


@dataclass(frozen=True, slots=True)
class Piece:
    """What is computed at once: n sequences, each with as many rows of the query as the others."""

    rows: Tensor  # [n * height] of the query
    is_all: bool  # these are all rows, in order
    count: int  # n
    height: int
    places: Tensor  # [n * keys] where keys and values stand, in rows of the cache's memory
    unseen: (
        Tensor | None
    )  # [n, 1, group * height, keys] 0 or -inf, added to scores; None: all is seen


def _plan(
    batch: Batch, window: int, group: int, stride: int, block_size: int, dtype: torch.dtype
) -> list[Piece]:
    """The pieces of a step. Where all decode they are kept, as they are small and cost as much as the
    attention itself."""
    key = (window, group, stride, dtype)
    found: list[Piece] | None = batch.plans.get(key)
    if found is None:
        found = list(_laid_out(batch, window, group, stride, block_size, dtype))
        if batch.max_query_length == 1:
            batch.plans[key] = found
    return found


def _laid_out(
    batch: Batch, window: int, group: int, stride: int, block_size: int, dtype: torch.dtype
) -> Iterator[Piece]:
    device = batch.context_lengths.device
    num_rows = len(batch.positions)
    for chosen, rows, contexts, longest, is_even in _pieces(batch):
        count = len(chosen)
        height = len(rows) // count
        span = min(longest, window + height - 1) if window else longest
        places = contexts[:, None] - span + torch.arange(span, device=device)
        unseen = None
        if height > 1 or not is_even:
            at = (contexts[:, None] - height + torch.arange(height, device=device))[..., None]
            seen = (places[:, None] <= at) & (places >= 0)[:, None]
            if window:
                seen &= places[:, None] > at - window
            hidden = torch.zeros(seen.shape, dtype=dtype, device=device)
            hidden.masked_fill_(~seen, float("-inf"))
            hidden = hidden[:, None, None].expand(count, 1, group, height, span)
            unseen = hidden.reshape(count, 1, group * height, span)
        # What lies before the first token is masked, and read as that token: elsewhere NaN may stand.
        places = places.clamp_(min=0)
        blocks = batch.block_tables.index_select(0, chosen).long().gather(1, places // block_size)
        flat = (blocks * stride + places % block_size).flatten()
        is_all = len(rows) == num_rows and (count == 1 or height == 1)
        yield Piece(rows, is_all, count, height, flat, unseen)


def _attend_piece(
    q: Tensor,
    piece: Piece,
    k_rows: Tensor,
    v_rows: Tensor,
    num_kv_heads: int,
    scale: float,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    """Of the piece's rows alone: q [n * height, num_heads, d], and so is the answer."""
    n, height = piece.count, piece.height
    _, num_heads, dim = q.shape
    group = num_heads // num_kv_heads
    # A group's heads stand as rows of the one matrix that their keys are multiplied with.
    if height > 1:
        q = q.view(n, height, num_kv_heads, group, dim).permute(0, 2, 3, 1, 4)
    q = q.reshape(n, num_kv_heads, group * height, dim)
    k = k_rows.index_select(0, piece.places).view(n, -1, num_kv_heads, dim).transpose(1, 2)
    v = v_rows.index_select(0, piece.places).view(n, -1, num_kv_heads, dim).transpose(1, 2)
    if softcap or sinks is not None:
        rows = _per_row(sinks, num_kv_heads, height)
        out = _explicit(q, k, v, piece.unseen, scale, softcap, rows)
    else:
        out = scaled_dot_product_attention(q, k, v, attn_mask=piece.unseen, scale=scale)
    if height > 1:
        out = out.view(n, num_kv_heads, group, height, dim).permute(0, 3, 1, 2, 4)
    return out.reshape(n * height, num_heads, dim)


def _pieces(batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor, int, bool]]:
    """What to compute at once: sequences, their rows of the query, their contexts up to the last of
    these rows, the longest of them, and whether all are as long. Each sequence of a piece has the same
    number of rows."""
    starts = batch.query_starts.tolist()
    lengths = batch.context_lengths.tolist()
    device = batch.context_lengths.device

    def ints(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=device)

    decodes: dict[int, list[int]] = defaultdict(list)
    for i, length in enumerate(lengths):
        begin, end = starts[i], starts[i + 1]
        if length == 0:  # padding: its rows stay 0
            continue
        if end - begin == 1:
            decodes[max(length - 1, SHORT - 1).bit_length()].append(i)
            continue
        for first in range(begin, end, TILE):
            last = min(first + TILE, end)
            context = length - (end - last)
            yield ints([i]), ints(range(first, last)), ints([context]), context, True
    for together in decodes.values():
        contexts = [lengths[i] for i in together]
        rows = ints([starts[i] for i in together])
        yield ints(together), rows, ints(contexts), max(contexts), min(contexts) == max(contexts)


def _explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    unseen: Tensor | None,
    scale: float,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if unseen is not None:
        scores = scores + unseen.float()
    if sinks is None:
        return torch.matmul(scores.softmax(-1).to(v.dtype), v)
    scores = torch.cat((scores, sinks.expand(*scores.shape[:-1], 1)), dim=-1)
    return torch.matmul(scores.softmax(-1)[..., :-1].to(v.dtype), v)


def _per_row(sinks: Tensor | None, num_kv_heads: int, height: int) -> Tensor | None:
    """[num_heads] -> [num_kv_heads, group * height, 1]"""
    if sinks is None:
        return None
    return sinks.float().view(num_kv_heads, -1).repeat_interleave(height, dim=1)[..., None]


def _token_rows(cache: Tensor) -> tuple[Tensor, int]:
    """The memory that a layer's blocks lie in as [tokens, num_kv_heads * head_dim], what is other
    layers' included, and by how many such rows one block stands after the other."""
    num_blocks, block_size, num_kv_heads, dim = cache.shape
    width = num_kv_heads * dim
    stride = cache.stride(0) // width
    count = (num_blocks - 1) * stride + block_size
    return cache.as_strided((count, width), (width, 1)), stride
