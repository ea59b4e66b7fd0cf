"""Sequences in a paged cache whose every other place is NaN, and attention over them told plainly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.paged.attention.reference import store_kv
from backends.paged.batch import BLOCK_SIZE, Batch, KvCache

NUM_LAYERS, LAYER = 3, 1


@dataclass(frozen=True)
class Heads:
    kv: int
    group: int
    dim: int


@dataclass(frozen=True)
class Features:
    window: int = 0
    softcap: float = 0.0
    has_sinks: bool = False


@dataclass(frozen=True)
class World:
    keys: list[Tensor]  # of each sequence [context, kv heads, dim]
    values: list[Tensor]
    q: Tensor
    batch: Batch
    k_cache: Tensor
    v_cache: Tensor
    sinks: Tensor
    scale: float


def poisoned(num_blocks: int, heads: Heads, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """One layer's part of a cache in which nothing was stored."""
    size = KvCache.bytes_per_block(NUM_LAYERS, heads.kv, heads.dim, dtype) * num_blocks
    buffer = torch.empty(size, dtype=torch.uint8)
    cache = KvCache.view(buffer, NUM_LAYERS, heads.kv, heads.dim, dtype)
    for layer in cache.layers:
        for part in layer:
            part.fill_(math.nan)
    return cache.layers[LAYER]


def world(
    lengths: Sequence[tuple[int, int]],
    heads: Heads,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> World:
    """`lengths`: of each sequence, tokens stored in steps past and tokens of this step."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    contexts = [past + new for past, new in lengths]
    widest = max(-(-context // BLOCK_SIZE) for context in contexts)
    order = torch.randperm(widest * len(lengths) + 1, generator=generator)
    k_cache, v_cache = poisoned(len(order), heads, dtype)
    tables = torch.zeros(len(lengths), widest, dtype=torch.int32)
    keys, values = [], []
    for i, context in enumerate(contexts):
        count = -(-context // BLOCK_SIZE)
        tables[i, :count] = order[i * widest : i * widest + count]
        keys.append(normal(context, heads.kv, heads.dim))
        values.append(normal(context, heads.kv, heads.dim))
        store_kv(keys[i], values[i], k_cache, v_cache, slots(tables[i], context))
    news = torch.tensor([new for _, new in lengths])
    starts = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    starts[1:] = news.cumsum(0)
    batch = Batch(
        positions=torch.cat([torch.arange(past, past + new) for past, new in lengths]),
        slots=torch.cat([slots(tables[i], c)[lengths[i][0] :] for i, c in enumerate(contexts)]),
        query_starts=starts,
        context_lengths=torch.tensor(contexts, dtype=torch.int32),
        block_tables=tables,
        max_query_length=int(news.max()),
        max_context_length=max(contexts),
    )
    num_heads = heads.kv * heads.group
    return World(
        keys,
        values,
        q=normal(int(starts[-1]), num_heads, heads.dim),
        batch=batch,
        k_cache=k_cache,
        v_cache=v_cache,
        sinks=torch.randn(num_heads, generator=generator),
        scale=heads.dim**-0.5,
    )


def slots(table: Tensor, context: int) -> Tensor:
    positions = torch.arange(context)
    return table.long()[positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE


def answers(attend, there: World, features: Features) -> Tensor:
    """What `attend`, a kernel or its reference, makes of it."""
    return attend(
        there.q,
        there.k_cache,
        there.v_cache,
        there.batch,
        scale=there.scale,
        window=features.window,
        softcap=features.softcap,
        sinks=there.sinks if features.has_sinks else None,
    )


def plainly(there: World, features: Features) -> Tensor:
    """In float64, sequence by sequence, every score written out."""
    found = []
    starts = there.batch.query_starts.tolist()
    for i, (keys, values) in enumerate(zip(there.keys, there.values, strict=True)):
        q = there.q[starts[i] : starts[i + 1]].double()
        group = q.shape[1] // keys.shape[1]
        k = keys.double().repeat_interleave(group, 1)
        v = values.double().repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) * there.scale
        if features.softcap:
            scores = features.softcap * torch.tanh(scores / features.softcap)
        at = torch.arange(len(k) - len(q), len(k))[:, None]
        key = torch.arange(len(k))
        hidden = key > at
        if features.window:
            hidden |= key <= at - features.window
        scores = scores.masked_fill(hidden, -math.inf)
        sinks = there.sinks.double()[:, None, None].expand(-1, len(q), 1)
        if not features.has_sinks:
            sinks = torch.full_like(sinks, -math.inf)
        weights = torch.cat((scores, sinks), -1).softmax(-1)[..., :-1]
        found.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(found)


def error(found: Tensor, wanted: Tensor) -> float:
    """The largest difference; NaN stays NaN."""
    return float((found.double() - wanted.double()).abs().max())
