"""From a plan of chunks to the tensors of a step, and through the model. No decision is made here."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Ordered

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backends.paged.batch import Batch, KvCache
from backends.paged.decoder import Decoder
from backends.paged.device import runs_triton, to_device
from backends.paged.graphs import DecodeGraphs
from backends.paged.scheduler import Chunk
from backends.paged.sequence import BLOCK_SIZE, Sequence, cdiv

Ints = NDArray[np.int64]
LOGITS_ROWS = 256  # rows of a prompt that is scored whose logits stand in memory at once


class Runner:
    """Runs steps. Keeps the block table of every seat, so that a step adds only what is new."""

    def __init__(
        self, decoder: Decoder, device: torch.device, *, max_running: int, context: int
    ) -> None:
        self.decoder = decoder
        self.device = device
        self._cache: KvCache | None = None
        self._tables = np.zeros((max_running, cdiv(context, BLOCK_SIZE)), np.int32)
        self._shown: list[tuple[list[int], int]] = [([], 0)] * max_running
        self._chosen = torch.zeros(max_running, dtype=torch.int64, device=device)  # by seat
        self.graphs: DecodeGraphs | None = None
        if runs_triton(self._chosen):  # torch reads lengths, which a capture does not survive
            blocks = cdiv(context, BLOCK_SIZE)
            self.graphs = DecodeGraphs(decoder, device, max_running=max_running, max_blocks=blocks)

    @property
    def cache(self) -> KvCache | None:
        """Where keys and values go. None: the model sleeps."""
        return self._cache

    @cache.setter
    def cache(self, cache: KvCache | None) -> None:
        self._cache = cache
        if self.graphs is not None:
            self.graphs.forget()

    def run(self, chunks: Ordered[Chunk]) -> Tensor:
        """Hidden states [tokens of all chunks, hidden_size], chunk after chunk."""
        assert self._cache is not None, "the model sleeps"
        with torch.inference_mode():
            return self._compute(*self._inputs(chunks), self._cache)

    def warm_up(self, num_tokens: int) -> None:
        """Compute prompts of nothing, of `num_tokens` and one too short to be divided, and a decode, for
        all that is made when it is first needed: kernels, libraries' handles, a graph. Nothing is stored."""
        assert self._cache is not None, "the model sleeps"
        for length in (num_tokens, 2, 1, 1):  # the second time a graph is captured
            with torch.inference_mode():
                tokens = torch.zeros(length, dtype=torch.int64, device=self.device)
                hidden = self._compute(tokens, self._nothing(length), self._cache)
            self.logits(hidden, [length - 1])

    def _nothing(self, length: int) -> Batch:
        """A sequence of so many tokens that leaves no trace, out of whatever is in the cache."""
        blocks = np.zeros((1, cdiv(length, BLOCK_SIZE)), np.int32)
        return Batch(
            positions=self._tensor(np.arange(length)),
            slots=self._tensor(np.full(length, -1)),
            query_starts=self._tensor(np.array([0, length], np.int32)),
            context_lengths=self._tensor(np.array([length], np.int32)),
            block_tables=self._tensor(blocks),
            max_query_length=length,
            max_context_length=length,
        )

    def _compute(self, tokens: Tensor, batch: Batch, cache: KvCache) -> Tensor:
        if self.graphs is not None and batch.max_query_length == 1:
            return self.graphs.run(tokens, batch, cache)
        return self.decoder(tokens, batch, cache)  # type: ignore[no-any-return]

    def keep(self, sequences: Ordered[Sequence], tokens: Tensor) -> None:
        """The next tokens of `sequences`, which a step can compute before the host knows them; where one
        is -1 nothing may follow, and what is computed is not used."""
        seats = self._tensor(_seats(sequences))
        self._chosen.index_copy_(0, seats, tokens.clamp(min=0))

    def logits(self, hidden: Tensor, rows: Ordered[int]) -> Tensor:
        """Logits [len(rows), vocab_size] float32 of some rows of `hidden`."""
        with torch.inference_mode():
            chosen = hidden.index_select(0, to_device(torch.tensor(rows), hidden.device))
            return self.decoder.logits(chosen)

    def scores(self, hidden: Tensor) -> Iterator[Tensor]:
        """Logits of all rows of `hidden`, a few hundred at a time."""
        with torch.inference_mode():
            for part in torch.split(hidden, LOGITS_ROWS):
                yield self.decoder.logits(part)

    def _inputs(self, chunks: Ordered[Chunk]) -> tuple[Tensor, Batch]:
        seats = _seats([chunk.sequence for chunk in chunks])
        begins = np.array([chunk.start for chunk in chunks])
        lengths = [chunk.length for chunk in chunks]
        for chunk in chunks:
            self._show(chunk)
        ends = begins + lengths
        starts = np.zeros(len(chunks) + 1, np.int32)
        np.cumsum(lengths, out=starts[1:])
        positions, rows = begins, seats
        if max(lengths) > 1:
            positions = np.arange(starts[-1]) + np.repeat(begins - starts[:-1], lengths)
            rows = np.repeat(seats, lengths)
        blocks = self._tables[rows, positions // BLOCK_SIZE]
        longest = int(ends.max())
        batch = Batch(
            positions=self._tensor(positions),
            slots=self._tensor(blocks.astype(np.int64) * BLOCK_SIZE + positions % BLOCK_SIZE),
            query_starts=self._tensor(starts),
            context_lengths=self._tensor(ends.astype(np.int32)),
            block_tables=self._tensor(self._tables[seats, : cdiv(longest, BLOCK_SIZE)]),
            max_query_length=max(lengths),
            max_context_length=longest,
        )
        tokens = self._tensor(_tokens(chunks))
        ahead = np.array([chunk.sequence.is_ahead for chunk in chunks])
        if ahead.any():  # a chunk of such a sequence is its last token alone
            chosen = self._chosen.index_select(0, self._tensor(seats[ahead]))
            tokens.index_copy_(0, self._tensor(starts[:-1][ahead].astype(np.int64)), chosen)
        return tokens, batch

    def _show(self, chunk: Chunk) -> None:
        """Bring the table of the chunk's seat up to date. A sequence's list of blocks only grows;
        with a new list the seat has a new sequence, or the old one came back."""
        sequence = chunk.sequence
        assert sequence.seat is not None
        blocks, count = self._shown[sequence.seat]
        if blocks is not sequence.blocks:
            count = 0
        if count < len(sequence.blocks):
            self._tables[sequence.seat, count : len(sequence.blocks)] = sequence.blocks[count:]
            self._shown[sequence.seat] = sequence.blocks, len(sequence.blocks)

    def _tensor(self, values: NDArray[np.int32] | Ints) -> Tensor:
        return to_device(torch.from_numpy(values), self.device)


def _seats(sequences: Ordered[Sequence]) -> Ints:
    return np.array([sequence.seat for sequence in sequences], np.int64)


def _tokens(chunks: Ordered[Chunk]) -> Ints:
    """0 where only the device knows the token."""
    tokens: list[int] = []
    for chunk in chunks:
        tokens += chunk.sequence.tokens[chunk.start : chunk.end] or [0]
    return np.array(tokens, np.int64)
