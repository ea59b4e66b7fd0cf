"""A llama context with its batch. Belongs to one thread; nothing here is called from two."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Ordered
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.llamacpp.batch import Chunk
from backends.llamacpp.binding import L, quick
from backends.llamacpp.sequence import ImageSpan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from backends.llamacpp.projector import Projector

OK, NO_CELLS, ABORTED, INVALID = 0, 1, 2, -1


class Batch:
    """A llama_batch over numpy arrays: filled by slices, not token by token."""

    def __init__(self, capacity: int) -> None:
        self.tokens = np.zeros(capacity, np.int32)
        self.positions = np.zeros(capacity, np.int32)
        self.slots = np.zeros(capacity, np.int32)
        self.outputs = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        self._places = np.arange(capacity, dtype=np.int32)
        addresses = self.slots.ctypes.data + 4 * np.arange(capacity, dtype=np.uint64)
        self._slot_pointers = addresses.astype(np.uint64)
        int32_p = ctypes.POINTER(ctypes.c_int32)
        self.struct = L.llama_batch(
            0,
            self.tokens.ctypes.data_as(int32_p),
            None,
            self.positions.ctypes.data_as(int32_p),
            self._ones.ctypes.data_as(int32_p),
            self._slot_pointers.ctypes.data_as(ctypes.POINTER(int32_p)),
            self.outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def clear(self) -> None:
        self.struct.n_tokens = 0

    def add(self, tokens: Any, start: int, slot: int) -> int:
        """Append tokens at positions from `start`; the row of the first. None of them is an output."""
        row: int = self.struct.n_tokens
        end = row + len(tokens)
        self.tokens[row:end] = tokens
        self.positions[row:end] = self._places[: end - row] + start
        self.slots[row:end] = slot
        self.outputs[row:end] = 0
        self.struct.n_tokens = end
        return row


class EmbeddingBatch:
    """A llama_batch of rows [n, width] at positions [1 or 4, n] in one slot; none of them is an output."""

    def __init__(self, rows: NDArray[np.float32], positions: NDArray[np.int32], slot: int) -> None:
        count = len(rows)
        self._slot = np.array([slot], np.int32)
        self._ones = np.ones(count, np.int32)
        self._slots = np.full(count, self._slot.ctypes.data, np.uint64)
        self._outputs = np.zeros(count, np.int8)
        self._rows, self._positions = rows, positions
        int32_p = ctypes.POINTER(ctypes.c_int32)
        self.struct = L.llama_batch(
            count,
            None,
            rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            positions.ctypes.data_as(int32_p),
            self._ones.ctypes.data_as(int32_p),
            self._slots.ctypes.data_as(ctypes.POINTER(int32_p)),
            self._outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )


class Context:
    """Runs batches and moves KV cells between slots."""

    def __init__(
        self,
        pointer: Any,
        num_vocab: int,
        *,
        can_cut: bool = True,
        projector: Projector | None = None,
    ) -> None:
        self.pointer = pointer
        self._can_cut = can_cut
        self._projector = projector
        self.batch = Batch(L.llama_n_batch(pointer))
        self._memory = L.llama_get_memory(pointer)
        self._num_vocab = num_vocab
        self.threads: int = L.llama_n_threads(pointer)

    def run(self, chunks: Ordered[Chunk]) -> tuple[int, list[int]]:
        """Run one step; llama_decode's verdict, and the row in the batch at which each chunk starts.
        Raises EngineError where the step is of an image that cannot be encoded."""
        if chunks[0].image is not None:
            return self._run_image(chunks[0]), [0]
        batch = self.batch
        batch.clear()
        rows = []
        for chunk in chunks:
            sequence, end = chunk.sequence, chunk.start + chunk.length
            position = sequence.position(chunk.start)
            row = batch.add(sequence.tokens[chunk.start : end], position, sequence.slot or 0)
            batch.outputs[row : row + chunk.scored] = 1
            batch.outputs[row + chunk.length - 1] |= chunk.ends_prompt
            rows.append(row)
        return self.decode(), rows

    def decode(self) -> int:
        """llama_decode on the batch as it stands, until the outcome can be read."""
        return self._decode(self.batch.struct)

    def _decode(self, batch: Any) -> int:
        verdict: int = L.llama_decode(self.pointer, batch)
        if verdict == OK:
            L.llama_synchronize(self.pointer)
        return verdict

    def _run_image(self, chunk: Chunk) -> int:
        """A part of an image, as embeddings in a batch of its own."""
        image, sequence, projector = chunk.image, chunk.sequence, self._projector
        assert image is not None
        assert projector is not None
        rows = projector.rows(
            image.content,
            sequence.scope,
            position=sequence.position(image.start),
            start=chunk.start - image.start,
            length=chunk.length,
        )
        batch = EmbeddingBatch(*rows, sequence.slot or 0)
        if not image.in_one_step:
            return self._decode(batch.struct)
        L.llama_set_causal_attn(self.pointer, False)
        try:
            return self._decode(batch.struct)
        finally:
            L.llama_set_causal_attn(self.pointer, True)

    def logits(self, row: int) -> NDArray[np.float32]:
        """The logits of a batch row that is an output: llama.cpp's own memory, good until the next run."""
        address = quick.llama_get_logits_ith(self.pointer, row)
        if not address:
            raise RuntimeError(f"row {row} has no logits")
        return floats_at(address, self._num_vocab)

    def copy(self, source: int, target: int, length: int) -> bool:
        """As the scheduler's KvMemory says."""
        quick.llama_memory_seq_cp(self._memory, source, target, 0, length)
        reached: int = quick.llama_memory_seq_pos_max(self._memory, target)
        return reached == length - 1 and (not self._can_cut or self._is_complete(target))

    def remove(self, slot: int) -> None:
        """As the scheduler's KvMemory says."""
        quick.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def save(self, slot: int) -> NDArray[np.uint8] | None:
        """As the scheduler's KvMemory says."""
        size = L.llama_state_seq_get_size(self.pointer, slot)
        state = np.empty(size, np.uint8)
        written = L.llama_state_seq_get_data(self.pointer, _bytes(state), size, slot)
        return state if size and written == size else None

    def restore(self, saved: Any, slot: int, length: int) -> bool:
        """As the scheduler's KvMemory says."""
        if not L.llama_state_seq_set_data(self.pointer, _bytes(saved), len(saved), slot):
            return False
        if self.computed(slot) > length:
            quick.llama_memory_seq_rm(self._memory, slot, length, -1)
        return self.computed(slot) == length and (not self._can_cut or self._is_complete(slot))

    def computed(self, slot: int) -> int:
        """How many positions the memory holds for `slot`."""
        return int(quick.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def has_rows(self, image: ImageSpan, scope: str) -> bool:
        """As the scheduler's KvMemory says."""
        assert self._projector is not None
        return self._projector.has_rows(image.content, scope)

    def clear(self) -> None:
        """Empty every slot."""
        L.llama_memory_clear(self._memory, False)

    def set_threads(self, threads: int) -> None:
        L.llama_set_n_threads(self.pointer, threads, threads)
        self.threads = L.llama_n_threads(self.pointer)

    def free(self) -> None:
        if self.pointer:
            L.llama_free(self.pointer)
            self.pointer = None

    def _is_complete(self, slot: int) -> bool:
        """Sliding-window layers may have let go of early positions, and a copy of them is no use."""
        return bool(quick.llama_memory_seq_pos_min(self._memory, slot) == 0)


def _bytes(state: NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def floats_at(address: int, count: int) -> NDArray[np.float32]:
    """llama.cpp's own memory as an array, without a copy."""
    memory: Any = (ctypes.c_float * count).from_address(address)
    return np.frombuffer(memory, np.float32)
