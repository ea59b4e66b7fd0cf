"""The least that runs a decoder over a paged cache: sequences, their blocks out of order, any batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backends.paged.batch import BLOCK_SIZE, Batch, KvCache
from backends.paged.decoder import Decoder


class Paged:
    """Sequences of one decoder. Whatever the cache holds that was not stored there is NaN."""

    def __init__(self, decoder: Decoder, num_sequences: int, context: int) -> None:
        spec = decoder.spec
        shape = (spec.num_layers, spec.num_kv_heads, spec.head_dim, decoder.dtype)
        per_sequence = -(-context // BLOCK_SIZE)
        num_blocks = 1 + num_sequences * per_sequence
        size = num_blocks * KvCache.bytes_per_block(*shape)
        self.device = next(decoder.parameters()).device
        buffer = torch.full((size,), 0xFF, dtype=torch.uint8, device=self.device)
        self.cache = KvCache.view(buffer, *shape)
        shuffled = torch.randperm(num_blocks - 1, generator=torch.Generator().manual_seed(5)) + 1
        self.tables = shuffled.view(num_sequences, per_sequence).int()
        self.lengths = [0] * num_sequences
        self.decoder = decoder

    def step(self, new: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        """Compute the `new` tokens of some sequences, as (sequence, tokens); the logits of each, on the CPU."""
        rows, positions = [], []
        for sequence, tokens in new:
            start = self.lengths[sequence]
            self.lengths[sequence] += len(tokens)
            at = torch.arange(start, start + len(tokens))
            positions.append(at)
            rows.append(
                self.tables[sequence][at // BLOCK_SIZE].long() * BLOCK_SIZE + at % BLOCK_SIZE
            )
        counts = [len(tokens) for _, tokens in new]
        contexts = [self.lengths[sequence] for sequence, _ in new]
        starts = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0).int()
        batch = Batch(
            positions=torch.cat(positions).to(self.device),
            slots=torch.cat(rows).to(self.device),
            query_starts=starts.to(self.device),
            context_lengths=torch.tensor(contexts, dtype=torch.int32, device=self.device),
            block_tables=self.tables[[sequence for sequence, _ in new]].to(self.device),
            max_query_length=max(counts),
            max_context_length=max(contexts),
        )
        tokens = torch.tensor([token for _, some in new for token in some], device=self.device)
        logits = self.decoder.logits(self.decoder(tokens, batch, self.cache))
        return list(logits.cpu().split(counts))
