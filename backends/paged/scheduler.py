"""Which tokens the next step computes, and in which blocks they go. Pure.

1. A step has one budget of tokens. Sequences that decode take theirs first, one each; what is left
   goes to prompts in the order of arrival, in chunks, so that a long prompt holds up nobody's answer.
2. A sequence is admitted when its tokens have room beside what those that run still have to compute,
   with a block to spare for each of them; alone, it is admitted always.
3. When the blocks run out, the youngest goes back to wait and is computed again later; mostly its
   beginning is then still there. The last one is never sent back: alone it must be able to finish.
4. Full blocks that are computed can be taken over by any later sequence of the same scope. Who
   waits for a beginning that another is just computing lets that one finish it.

A step is planned while the one before it may still run. So `computed` means *by the time the next step
reads it*; a block is only handed over once its tokens are known, and a sequence that has all its tokens
stays, with nothing to compute, until somebody has read the last of them.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from heapq import heappop, heappush

from backends.paged.block_manager import BlockManager
from backends.paged.sequence import BLOCK_SIZE, Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """`length` tokens of a sequence, from position `start`."""

    sequence: Sequence
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def is_last(self) -> bool:
        """Whether the sequence's next token comes out of it."""
        return self.end == self.sequence.num_tokens


class Scheduler:
    """Sole owner of waiting and running sequences and of their blocks."""

    def __init__(self, blocks: BlockManager, *, budget: int, max_running: int) -> None:
        self.blocks = blocks
        self.budget = budget
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preempted = 0
        self._seats = list(range(max_running))  # free, as a heap

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Take `sequence` on; alone it must have room."""
        insort(self.waiting, sequence, key=_arrival)

    def schedule(self) -> list[Chunk]:
        """What the next step computes: at most one chunk a sequence, with blocks for all of it."""
        self._admit()
        while True:
            chunks = plan_chunks(self.running, self.budget)
            wanted = sum(chunk.sequence.blocks_wanted(chunk.end) for chunk in chunks)
            if wanted <= self.blocks.num_free:
                break
            self._preempt_youngest()
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.blocks += self.blocks.allocate(sequence.blocks_wanted(chunk.end))
        return chunks

    def advance(self, chunks: Iterable[Chunk]) -> None:
        """The step is under way; the tokens it brings are not appended yet."""
        for chunk in chunks:
            chunk.sequence.num_computed = chunk.end
            self._publish(chunk.sequence)

    def finish(self, sequence: Sequence) -> None:
        """`sequence` is over, for whatever reason."""
        if sequence.is_running:
            self._stop(sequence)
        else:
            self.waiting.remove(sequence)

    def preempt(self, sequence: Sequence) -> None:
        """Send a running sequence back to wait."""
        self._stop(sequence)
        sequence.num_computed = 0
        self.num_preempted += 1
        self.add(sequence)

    # Admission

    def _admit(self) -> None:
        room = self.blocks.num_free - sum(map(_blocks_ahead, self.running))
        for sequence in list(self.waiting):
            if not self._seats:
                return
            if sequence.is_ahead:
                continue
            known = self._known_beginning(sequence)
            if self._is_coming(sequence, len(known)):
                continue
            wanted = sequence.blocks_wanted(sequence.num_tokens) - len(known) + 1
            wanted += self.blocks.num_idle(known)
            if self.running and wanted > room:
                return
            room -= wanted
            self._start(sequence, known)

    def _known_beginning(self, sequence: Sequence) -> list[int]:
        """Blocks to take over. At least one token is left to compute: the next one comes out of it."""
        if sequence.needs_all_rows:
            return []
        return self.blocks.find(sequence.digests((sequence.num_tokens - 1) // BLOCK_SIZE))

    def _is_coming(self, sequence: Sequence, index: int) -> bool:
        """Whether block `index` of it is being computed for another: waiting is quicker than doing it
        twice. The choices of one request come together and have all of their prompt in common."""
        end = (index + 1) * BLOCK_SIZE
        if sequence.needs_all_rows or end >= sequence.num_tokens:
            return False
        digest = sequence.digests(index + 1)[index]
        return any(
            other.num_computed < end <= len(other.tokens)
            and other.digests(index + 1)[index] == digest
            for other in self.running
        )

    def _start(self, sequence: Sequence, known: list[int]) -> None:
        self.blocks.share(known)
        self.waiting.remove(sequence)
        sequence.blocks = known
        sequence.num_published = len(known)
        sequence.num_computed = len(known) * BLOCK_SIZE
        if sequence.num_cached is None:
            sequence.num_cached = sequence.num_computed
        sequence.seat = heappop(self._seats)
        insort(self.running, sequence, key=_arrival)

    # Room

    def _preempt_youngest(self) -> None:
        assert len(self.running) > 1, "a lone sequence is larger than the KV cache"
        self.preempt(self.running[-1])

    def _publish(self, sequence: Sequence) -> None:
        """Have its full blocks of known tokens taken over by others."""
        count = min(sequence.num_computed, len(sequence.tokens)) // BLOCK_SIZE
        if count > sequence.num_published:
            digests = sequence.digests(count)
            for index in range(sequence.num_published, count):
                self.blocks.publish(sequence.blocks[index], digests[index])
            sequence.num_published = count

    def _stop(self, sequence: Sequence) -> None:
        assert sequence.seat is not None
        self._publish(sequence)
        self.blocks.release(sequence.blocks)
        sequence.blocks = []
        heappush(self._seats, sequence.seat)
        sequence.seat = None
        self.running.remove(sequence)

    def check_integrity(self) -> None:
        """Raise AssertionError where the books do not agree with each other."""
        self.blocks.check_integrity(sequence.blocks for sequence in self.running)
        assert not any(s.is_running or s.blocks or s.num_computed for s in self.waiting)
        for sequences in (self.waiting, self.running):
            assert sequences == sorted(sequences, key=_arrival)
        seats = [sequence.seat for sequence in self.running]
        assert None not in seats
        assert not set(seats) & set(self._seats)
        assert len(set(seats)) == len(seats)
        for sequence in self.running:
            assert sequence.num_computed <= len(sequence.blocks) * BLOCK_SIZE


def plan_chunks(running: Ordered[Sequence], budget: int) -> list[Chunk]:
    """Rule 1. `running` in the order of arrival."""
    chunks = [Chunk(s, s.num_computed, 1) for s in running if s.is_decoding][:budget]
    budget -= len(chunks)
    for sequence in running:
        if budget <= 0:
            break
        if sequence.num_left > 1:
            length = min(sequence.num_left, budget)
            chunks.append(Chunk(sequence, sequence.num_computed, length))
            budget -= length
    return chunks


def _blocks_ahead(sequence: Sequence) -> int:
    """Blocks it will need for the tokens it has, and one for its answer."""
    return sequence.blocks_wanted(sequence.num_tokens) + 1


def _arrival(sequence: Sequence) -> int:
    return sequence.serial
