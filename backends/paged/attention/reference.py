"""Attention over the block table in plain torch: what the kernel is tested against, and what a CPU runs.

Sequences that decode are computed together; longer queries by tiles of rows, one sequence at a time.
Keys stand right-aligned, so that a window costs no more than its own length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

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
    for new, cache in ((k, k_cache), (v, v_cache)):
        rows, stride = _token_rows(cache)
        places = slots // block_size * stride + slots % block_size
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
    out = torch.zeros_like(q)
    for chosen, rows, contexts, longest in _pieces(batch):
        height = len(rows) // len(chosen)
        span = min(longest, window + height - 1) if window else longest
        places = contexts[:, None] - span + torch.arange(span, device=q.device)
        at = (contexts[:, None] - height + torch.arange(height, device=q.device))[..., None]
        seen = (places[:, None] <= at) & (places >= 0)[:, None]
        if window:
            seen &= places[:, None] > at - window
        # What lies before the first token is masked, and read as that token: elsewhere NaN may stand.
        tables = batch.block_tables.index_select(0, chosen)
        k = _gather(k_cache, tables, places.clamp_(min=0))
        v = _gather(v_cache, tables, places)
        queries = q.index_select(0, rows).view(len(chosen), height, *q.shape[1:])
        answer = _attention(queries, k, v, seen, scale, softcap, sinks)
        out.index_copy_(0, rows, answer.flatten(0, 1))
    return out


def _pieces(batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """What to compute at once: sequences, their rows of the query, their contexts up to the last of
    these rows, and the longest of them. Each sequence of a piece has the same number of rows."""
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
            yield ints([i]), ints(range(first, last)), ints([context]), context
    for together in decodes.values():
        contexts = [lengths[i] for i in together]
        rows = ints([starts[i] for i in together])
        yield ints(together), rows, ints(contexts), max(contexts)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    scale: float,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    """q [n, rows, num_heads, d], k and v [n, keys, num_kv_heads, d], seen [n, rows, keys]."""
    n, height, num_heads, dim = q.shape
    num_kv_heads = k.shape[2]
    group = num_heads // num_kv_heads
    # A group's heads stand as rows of the one matrix that their keys are multiplied with.
    q = q.view(n, height, num_kv_heads, group, dim).permute(0, 2, 3, 1, 4)
    q = q.reshape(n, num_kv_heads, group * height, dim)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    seen = seen[:, None, None].expand(n, 1, group, height, -1).reshape(n, 1, group * height, -1)
    if softcap or sinks is not None:
        out = _explicit(q, k, v, seen, scale, softcap, _per_row(sinks, num_kv_heads, height))
    else:
        out = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    out = out.view(n, num_kv_heads, group, height, dim).permute(0, 3, 1, 2, 4)
    return out.reshape(n, height, num_heads, dim)


def _explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    scale: float,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is None:
        return torch.matmul(scores.softmax(-1).to(v.dtype), v)
    scores = torch.cat((scores, sinks.expand(*scores.shape[:-1], 1)), dim=-1)
    return torch.matmul(scores.softmax(-1)[..., :-1].to(v.dtype), v)


def _per_row(sinks: Tensor | None, num_kv_heads: int, height: int) -> Tensor | None:
    """[num_heads] -> [num_kv_heads, group * height, 1]"""
    if sinks is None:
        return None
    return sinks.float().view(num_kv_heads, -1).repeat_interleave(height, dim=1)[..., None]


def _gather(cache: Tensor, tables: Tensor, places: Tensor) -> Tensor:
    """What stands at `places`, [n, keys], of the sequences with these block tables, [n, max_blocks]."""
    block_size, num_kv_heads, dim = cache.shape[1:]
    rows, stride = _token_rows(cache)
    blocks = tables.long().gather(1, places // block_size)
    found = rows.index_select(0, (blocks * stride + places % block_size).flatten())
    return found.view(*places.shape, num_kv_heads, dim)


def _token_rows(cache: Tensor) -> tuple[Tensor, int]:
    """The memory that a layer's blocks lie in as [tokens, num_kv_heads * head_dim], what is other
    layers' included, and by how many such rows one block stands after the other."""
    num_blocks, block_size, num_kv_heads, dim = cache.shape
    width = num_kv_heads * dim
    stride = cache.stride(0) // width
    count = (num_blocks - 1) * stride + block_size
    return cache.as_strided((count, width), (width, 1)), stride
