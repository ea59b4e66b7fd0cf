"""What one step computes on, and the cache it reads and writes. Handed down as arguments, never global."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

BLOCK_SIZE = 16  # tokens whose keys and values stand together


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows: sequences packed one after the other, T tokens, B sequences."""

    positions: Tensor  # [T] int64, position of each token in its sequence
    slots: Tensor  # [T] int64, block * BLOCK_SIZE + offset where its K/V goes; -1: store nothing
    query_starts: Tensor  # [B + 1] int32, where each sequence's tokens begin
    context_lengths: Tensor  # [B] int32, tokens in the cache once this step's are stored
    block_tables: Tensor  # [B, max_blocks] int32, block numbers; beyond a sequence's blocks: 0
    max_query_length: int  # 1: all sequences decode
    max_context_length: int
    # What attention without a kernel worked out of all this, the same for every layer; by what it depends on.
    plans: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class KvCache:
    """Keys and values of every layer, as views of memory that somebody else owns.

    One block of all layers is contiguous, so that moving a block is one copy. What a block holds that
    was never stored is undefined, NaN included.
    """

    layers: tuple[
        tuple[Tensor, Tensor], ...
    ]  # each [num_blocks, BLOCK_SIZE, num_kv_heads, head_dim]

    @property
    def num_blocks(self) -> int:
        return self.layers[0][0].shape[0]

    @staticmethod
    def bytes_per_block(
        num_layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> int:
        return num_layers * 2 * BLOCK_SIZE * num_kv_heads * head_dim * dtype.itemsize

    @classmethod
    def view(
        cls,
        buffer: Tensor,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
    ) -> KvCache:
        """As many whole blocks as `buffer` ([bytes] uint8, contiguous) has room for.

        Raises ValueError where it has not room for one.
        """
        per_block = cls.bytes_per_block(num_layers, num_kv_heads, head_dim, dtype)
        num_blocks = buffer.numel() // per_block
        if num_blocks == 0:
            raise ValueError(f"{buffer.numel()} bytes hold no block: one takes {per_block}")
        blocks = (
            buffer[: num_blocks * per_block]
            .view(dtype)
            .view(num_blocks, num_layers, 2, BLOCK_SIZE, num_kv_heads, head_dim)
        )
        return cls(tuple((blocks[:, i, 0], blocks[:, i, 1]) for i in range(num_layers)))
