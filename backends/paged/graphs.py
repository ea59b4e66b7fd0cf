"""Decode steps as CUDA graphs: one launch instead of hundreds, which would take as long as the step.

A graph is captured for a number of sequences, and replayed for as many or fewer: rows that are left over
store nothing and are not read. The first step of a size runs without one: that compiles what a capture must
not compile, and a first token need not wait for a capture. A graph reads its inputs from tensors that stay where
they are, and holds the addresses of weights and KV cache: when these move, all graphs are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from backends.paged.batch import BLOCK_SIZE, Batch, KvCache
from backends.paged.decoder import Decoder

Step = Callable[[], Tensor]
Replay = Callable[[], Tensor]
Capture = Callable[[Step], Replay]


class DecodeGraphs:
    """Runs steps in which every sequence has one token."""

    def __init__(
        self,
        decoder: Decoder,
        device: torch.device,
        *,
        max_running: int,
        max_blocks: int,
        new_capture: Callable[[], Capture] | None = None,
    ) -> None:
        self._decoder = decoder
        self._new_capture = new_capture or _SharedMemoryCapture
        self._capture = self._new_capture()
        self._replays: dict[int, Replay] = {}
        self._seen: set[int] = set()  # sizes that have run
        count = graph_size(max_running)

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self._tokens = zeros(count)
        self._inputs = Batch(
            positions=zeros(count),
            slots=zeros(count),
            query_starts=torch.arange(count + 1, dtype=torch.int32, device=device),
            context_lengths=zeros(count, dtype=torch.int32),
            block_tables=zeros(count, max_blocks, dtype=torch.int32),
            max_query_length=1,
            max_context_length=max_blocks * BLOCK_SIZE,
        )

    def run(self, tokens: Tensor, batch: Batch, cache: KvCache) -> Tensor:
        """Hidden states [B, hidden_size], valid until the next step."""
        count = len(tokens)
        size = graph_size(count)
        self._fill(tokens, batch, size)
        return self._replay(size, cache)()[:count]

    def forget(self) -> None:
        """Weights or cache have moved."""
        self._replays.clear()
        self._seen.clear()
        self._capture = self._new_capture()

    def _replay(self, size: int, cache: KvCache) -> Replay:
        def step() -> Tensor:
            return self._decoder(self._tokens[:size], self._first(size), cache)  # type: ignore[no-any-return]

        if size not in self._seen:
            self._seen.add(size)
            return step
        if size not in self._replays:
            self._replays[size] = self._capture(step)
        return self._replays[size]

    def _fill(self, tokens: Tensor, batch: Batch, size: int) -> None:
        count, inputs = len(tokens), self._inputs
        self._tokens[:count].copy_(tokens)
        inputs.positions[:count].copy_(batch.positions)
        inputs.slots[:count].copy_(batch.slots)
        inputs.context_lengths[:count].copy_(batch.context_lengths)
        inputs.block_tables[:count, : batch.block_tables.shape[1]].copy_(batch.block_tables)
        self._tokens[count:size].zero_()  # alike, they go to the same few experts
        inputs.slots[count:size].fill_(-1)
        inputs.context_lengths[count:size].zero_()
        inputs.positions[count:size].zero_()

    def _first(self, size: int) -> Batch:
        inputs = self._inputs
        return replace(
            inputs,
            positions=inputs.positions[:size],
            slots=inputs.slots[:size],
            query_starts=inputs.query_starts[: size + 1],
            context_lengths=inputs.context_lengths[:size],
            block_tables=inputs.block_tables[:size],
        )


def graph_size(count: int) -> int:
    """For how many sequences the graph is that serves `count` of them."""
    return 1 << (count - 1).bit_length() if count <= 16 else -(-count // 16) * 16


class _SharedMemoryCapture:
    """Captures graphs that work in the same memory, as none is replayed while another runs. What one
    leaves is its own."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()  # of no use once all its graphs are gone

    def __call__(self, step: Step) -> Replay:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out = step()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay
