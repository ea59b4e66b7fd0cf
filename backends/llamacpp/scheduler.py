"""Who runs, with which cells, in the next step. Pure: cells are moved through `KvMemory`, time plays no part.

    waiting --admit--> running --finish--> kept --room is needed--> gone
       ^                  |
       +----preempt-------+

Rules:
1. Sequences are admitted in order of arrival, as long as there is a slot and the pool has room for their
   prompts and for a while of answers. What stands in order before does not let later ones past.
2. A sequence starts from the longest beginning that any kept or running one of its scope has computed.
   Its last token is always run anew: without that there are no logits.
3. Where a longer beginning is being computed just now, the sequence waits for it instead of computing the
   same once more. This is the one case in which later arrivals may pass.
4. When cells run short: kept sequences go first, least recently used first; then the youngest running
   sequence gives its cells up and is computed again later. Alone, a sequence always fits.
5. A step runs text or a part of one image: llama.cpp takes no batch of both. Where both wait, they take
   turns, so that no image holds up an answer; one whose rows are still being made is passed over. An image
   is taken over whole or not at all.

Slots below `max_running` run; those above only keep. Without `keep`, what is kept stays in its cells of
the pool. With it, it is saved outside of them, up to so many tokens, and brought back when it is wanted:
on a CPU every running row steps over all cells of the pool up to the last one taken, in every layer, so
that a few kept conversations would slow every answer down.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Sequence as Ordered
from heapq import heappop, heappush
from typing import Protocol

from backends.llamacpp.batch import Chunk, plan_chunks, plan_image
from backends.llamacpp.cache import PrefixCache
from backends.llamacpp.cells import CellLedger
from backends.llamacpp.sequence import ImageSpan, Sequence, common_prefix

MIN_SHARED = 16  # a shorter common beginning is not worth a copy, nor keeping
MIN_AWAITED = 32  # nor, when it is still being computed, a step's wait
HEADROOM = 32  # answer tokens that must fit beyond the prompts before one more is admitted


class KvMemory(Protocol):
    """Moves cells between slots, between steps."""

    def copy(self, source: int, target: int, length: int) -> bool:
        """Give the empty `target` the positions of `source` before `length`; False where the model's
        memory no longer has them all, with `target` in any state."""
        ...

    def remove(self, slot: int) -> None:
        """Empty `slot`."""
        ...

    def save(self, slot: int) -> object | None:
        """What `slot` holds, as a copy outside of the pool; None where that fails."""
        ...

    def restore(self, saved: object, slot: int, length: int) -> bool:
        """Give the empty `slot` the positions of `saved` before `length`, which needs free cells for all
        of it meanwhile; False where that fails, with `slot` in any state."""
        ...

    def has_rows(self, image: ImageSpan, scope: str) -> bool:
        """Whether the image can be run; if not, it is made so meanwhile."""
        ...


class Scheduler:
    """Sole owner of waiting, running and kept sequences and of the books of their cells."""

    def __init__(
        self,
        memory: KvMemory,
        *,
        pool: int,
        max_running: int,
        max_slots: int,
        budget: int,
        max_outputs: int,
        can_cut: bool = True,
        keep: int | None = None,
    ) -> None:
        self.budget = budget
        self.max_running = max_running
        self.max_outputs = max_outputs
        self.can_cut = can_cut  # False: the model's state is all or nothing (recurrent layers)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.cache = PrefixCache()
        self.cells = CellLedger(pool)
        self.num_preempted = 0
        self._memory = memory
        self._keep_tokens = keep
        self._ran_image = False
        self._run_slots = list(range(max_running))
        self._keep_slots = list(range(max_running, max_slots))

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=_arrival)

    def schedule(self) -> list[Chunk]:
        """Admit whom there is room for, and say what the next step computes; nothing, where all that is left
        to do waits for images."""
        self._admit()
        while True:
            chunks = self._plan()
            if self._make_room(sum(chunk.length for chunk in chunks)):
                return chunks

    def _plan(self) -> list[Chunk]:
        """Rule 5."""
        texts = plan_chunks(self.running, self.budget, self.max_outputs)
        image = plan_image(filter(self._is_at_rows, self.running), self.budget)
        if image is None or (texts and self._ran_image):
            return texts
        return [image]

    def _is_at_rows(self, sequence: Sequence) -> bool:
        if not sequence.images or sequence.text_left:
            return False
        image = sequence.image_at(sequence.num_computed)
        return image is not None and self._memory.has_rows(image, sequence.scope)

    def advance(self, chunks: Ordered[Chunk]) -> None:
        """The step was computed."""
        self._ran_image = bool(chunks) and chunks[0].image is not None
        for chunk in chunks:
            sequence = chunk.sequence
            assert sequence.slot is not None, "a chunk outlived its sequence's slot"
            self.cells.extend(sequence.slot, chunk.length)
            sequence.num_computed += chunk.length

    def finish(self, sequence: Sequence) -> None:
        """`sequence` is over, for whatever reason: its cells are kept, its place is free."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence.slot is None:
            return
        if sequence.num_computed >= MIN_SHARED:
            self._keep(sequence, sequence.slot)
        self._give_back(sequence)

    def relieve(self) -> bool:
        """The pool was too short for the step after all: make some room; False when none can be."""
        if self.cache and self._keep_tokens is None:
            self.drop_cache()
            return True
        return self._preempt_youngest()

    def discard(self, sequence: Sequence) -> None:
        """`sequence` ends and its cells, which may be wrong, are not kept."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence.slot is not None:
            self._give_back(sequence)

    def drop_cache(self) -> None:
        """Forget all that is kept."""
        for slot in self.cache.clear():
            self._free_kept(slot)

    # Admission

    def _admit(self) -> None:
        for sequence in list(self.waiting):
            if len(self.running) >= self.max_running:
                return
            if self._awaits_prefill(sequence):
                continue
            if not self._start(sequence):
                return

    def _awaits_prefill(self, sequence: Sequence) -> bool:
        """Rule 3. The answer is remembered in `waits_for`, so that it costs nothing to ask again."""
        if sequence.waits_for is not None:
            source, length = sequence.waits_for
            if source.is_running and source.num_computed < length:
                return True
            sequence.waits_for = None
        if not self.can_cut or sequence.score_prompt:
            return False
        found = self._best_prefix(sequence)
        best = (found[1] if found else 0) + MIN_AWAITED
        for other in self.running:
            if other.scope != sequence.scope or other.is_decoding:
                continue
            length = common_prefix(other.tokens, sequence.tokens, sequence.num_tokens - 1)
            if length > other.num_computed and length >= best:
                sequence.waits_for, best = (other, length), length
        return sequence.waits_for is not None

    def _best_prefix(self, sequence: Sequence) -> tuple[int, int] | None:
        """Slot and length of the longest computed beginning that `sequence` may take over."""
        if sequence.score_prompt:
            return None
        limit = sequence.num_tokens - 1
        best = self.cache.match(sequence.tokens, sequence.scope, limit, whole=not self.can_cut)
        if self.can_cut:
            for other in self.running:
                if other.scope == sequence.scope and other.slot is not None:
                    reach = min(limit, other.num_computed)
                    length = common_prefix(other.tokens, sequence.tokens, reach)
                    if length > (best[1] if best else 0):
                        best = other.slot, length
        if best is None:
            return None
        slot, length = best[0], sequence.uncut(best[1])
        return (slot, length) if length >= MIN_SHARED else None

    def _start(self, sequence: Sequence) -> bool:
        """Give `sequence` a slot and the cells it can take over; False when the pool has no room."""
        slot = self._run_slots[0]
        source, length = self._best_prefix(sequence) or (None, 0)
        saved = None if source is None else self.cache.saved(source)
        if source is not None and saved is None:
            self.cells.share(source, slot, length)
        if self.running and not self._has_room(sequence, slot):
            self.cells.release(slot)
            return False
        heappop(self._run_slots)
        if source is not None and not self._take_over(sequence, source, slot, length):
            length = 0
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.slot, sequence.num_computed = slot, length
        if sequence.num_cached is None:
            sequence.num_cached = length
        return True

    def _has_room(self, sequence: Sequence, slot: int) -> bool:
        slots = [slot, *(other.slot for other in self.running if other.slot is not None)]
        wanted = sequence.num_tokens - self.cells.length(slot) + _headroom(sequence)
        wanted += sum(other.num_left + _headroom(other) for other in self.running)
        return self.cells.held_by(slots) + wanted <= self.cells.size

    def _take_over(self, sequence: Sequence, source: int, slot: int, length: int) -> bool:
        if source >= self.max_running:
            self.cache.touch(source)
        position, saved = sequence.position(length), self.cache.saved(source)
        if saved is None:
            done = self._memory.copy(source, slot, position)
        elif done := self._bring_back(saved, self.cache.length(source), slot, position):
            self.cells.extend(slot, length)
        if not done:
            self._memory.remove(slot)
            self.cells.release(slot)
        return done

    def _bring_back(self, saved: object, whole: int, slot: int, position: int) -> bool:
        return self.cells.free >= whole and self._memory.restore(saved, slot, position)

    # Room

    def _make_room(self, wanted: int) -> bool:
        """Free cells until `wanted` fit; False when a sequence had to go and the plan is void."""
        while self.cells.free < wanted:
            if self._keep_tokens is not None or not self._drop_oldest():
                if not self._preempt_youngest():
                    raise AssertionError("a lone sequence is larger than the pool")
                return False
        return True

    def _drop_oldest(self) -> bool:
        slot = self.cache.pop_oldest()
        if slot is None:
            return False
        self._free_kept(slot)
        return True

    def _free_kept(self, slot: int) -> None:
        self._memory.remove(slot)
        self.cells.release(slot)
        heappush(self._keep_slots, slot)

    def _preempt_youngest(self) -> bool:
        """Rule 4. Never the last one: alone it must be able to finish."""
        if len(self.running) < 2:
            return False
        sequence = max(self.running, key=_arrival)
        self._give_back(sequence)
        sequence.num_computed = 0
        self.num_preempted += 1
        self.add(sequence)
        return True

    # Endings

    def _keep(self, sequence: Sequence, slot: int) -> None:
        tokens = sequence.tokens[: sequence.num_computed]
        if self.cache.covering(tokens, sequence.scope) is not None:
            return
        for covered in self.cache.covered_by(tokens, sequence.scope):
            self.cache.remove(covered)
            self._free_kept(covered)
        if not self._keep_slots and not self._drop_oldest():
            return
        if self._keep_tokens is None:
            self._keep_in_cells(sequence, tokens, slot)
        else:
            self._keep_outside(tokens, sequence.scope, slot, self._keep_tokens)

    def _keep_in_cells(self, sequence: Sequence, tokens: array[int], slot: int) -> None:
        keep = heappop(self._keep_slots)
        self.cells.share(slot, keep, len(tokens))
        if self._memory.copy(slot, keep, sequence.position(len(tokens))):
            self.cache.add(keep, tokens, sequence.scope)
        else:
            self._free_kept(keep)

    def _keep_outside(self, tokens: array[int], scope: str, slot: int, room: int) -> None:
        """Room is made before it is taken; a slot only lends its number."""
        while self.cache and self.cache.num_tokens + len(tokens) > room:
            self._drop_oldest()
        saved = self._memory.save(slot)
        if saved is not None:
            self.cache.add(heappop(self._keep_slots), tokens, scope, saved)

    def _give_back(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        self._memory.remove(sequence.slot)
        self.cells.release(sequence.slot)
        heappush(self._run_slots, sequence.slot)
        self.running.remove(sequence)
        sequence.slot = None

    def check_integrity(self) -> None:
        """Raise AssertionError where the books do not agree with each other."""
        self.cells.check_integrity()
        assert self.cells.used <= self.cells.size
        assert not set(self.waiting) & set(self.running)
        assert all(not sequence.is_running for sequence in self.waiting)
        slots = [sequence.slot for sequence in self.running]
        assert len(set(slots)) == len(slots)
        for sequence in self.running:
            assert sequence.slot is not None
            assert self.cells.length(sequence.slot) == sequence.num_computed


def _arrival(sequence: Sequence) -> int:
    return sequence.serial


def _headroom(sequence: Sequence) -> int:
    return min(sequence.max_tokens - sequence.num_answer, HEADROOM)
