"""What a graph of a decode step computes beside the sequences that it serves."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from backends.paged.batch import Batch, KvCache  # noqa: E402
from backends.paged.graphs import DecodeGraphs  # noqa: E402


def decodes(count: int) -> tuple[Tensor, Batch]:
    each = torch.arange(1, count + 1)
    return each + 40, Batch(
        positions=each,
        slots=each + 16,
        query_starts=torch.arange(count + 1, dtype=torch.int32),
        context_lengths=(each + 1).int(),
        block_tables=torch.ones(count, 1, dtype=torch.int32),
        max_query_length=1,
        max_context_length=count + 1,
    )


def test_rows_to_spare_store_nothing_and_are_alike_whatever_was_there() -> None:
    seen: list[tuple[Tensor, Batch]] = []

    def decoder(tokens: Tensor, batch: Batch, cache: KvCache) -> Tensor:
        seen.append((tokens.clone(), batch))
        return tokens[:, None].float()

    graphs = DecodeGraphs(
        decoder, torch.device("cpu"), max_running=8, max_blocks=4, new_capture=lambda: lambda s: s
    )
    cache = KvCache(())
    graphs.run(*decodes(8), cache)
    hidden = graphs.run(*decodes(5), cache)
    tokens, batch = seen[-1]
    assert hidden.flatten().tolist() == [41, 42, 43, 44, 45]
    assert tokens.tolist() == [41, 42, 43, 44, 45, 0, 0, 0]
    assert batch.positions[5:].tolist() == batch.context_lengths[5:].tolist() == [0, 0, 0]
    assert batch.slots[5:].tolist() == [-1, -1, -1]
