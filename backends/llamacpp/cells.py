"""Which cells of the KV pool are taken, and by whom. Pure bookkeeping of llama.cpp's unified KV cache.

A cell holds one position of one or more slots. Copying a prefix to another slot takes no cells: both
slots then hold the same ones, and a cell is free again when its last holder lets go. A slot's cells are
kept as a list of stretches; a stretch is grown only by a slot that holds it alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Stretch:
    """Consecutive positions, with how many of them each slot holds from the start."""

    holders: dict[int, int] = field(default_factory=dict)

    @property
    def live(self) -> int:
        return max(self.holders.values(), default=0)


class CellLedger:
    """Books of a pool of `size` cells. Refuses nothing: the scheduler asks before it takes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._slots: dict[int, list[Stretch]] = {}

    @property
    def free(self) -> int:
        return self.size - self.used

    def length(self, slot: int) -> int:
        """Positions that `slot` holds."""
        return sum(stretch.holders[slot] for stretch in self._slots.get(slot, ()))

    def extend(self, slot: int, count: int) -> None:
        """`slot` takes `count` new cells behind those it has."""
        stretches = self._slots.setdefault(slot, [])
        if not stretches or len(stretches[-1].holders) > 1:
            stretches.append(Stretch({slot: 0}))
        stretches[-1].holders[slot] += count
        self.used += count

    def share(self, source: int, target: int, length: int) -> None:
        """`target`, which holds nothing, joins `source` in its first `length` cells."""
        assert not self._slots.get(target), f"slot {target} is not empty"
        joined = self._slots[target] = []
        for stretch in self._slots.get(source, ()):
            if length <= 0:
                break
            taken = min(length, stretch.holders[source])
            stretch.holders[target] = taken
            joined.append(stretch)
            length -= taken
        assert length <= 0, f"slot {source} is shorter than what is shared of it"

    def release(self, slot: int) -> int:
        """`slot` lets go of all it holds; the cells that became free by it."""
        freed = 0
        for stretch in self._slots.pop(slot, ()):
            before = stretch.live
            del stretch.holders[slot]
            freed += before - stretch.live
        self.used -= freed
        return freed

    def rename(self, old: int, new: int) -> None:
        """`new`, which holds nothing, stands where `old` stood."""
        self.share(old, new, self.length(old))
        self.release(old)

    def held_by(self, slots: Collection[int]) -> int:
        """Cells that at least one of `slots` holds."""
        seen: dict[int, int] = {}
        for slot in slots:
            for stretch in self._slots.get(slot, ()):
                key = id(stretch)
                seen[key] = max(seen.get(key, 0), stretch.holders[slot])
        return sum(seen.values())

    def check_integrity(self) -> None:
        """Raise AssertionError where the books do not agree."""
        stretches = {id(s): s for held in self._slots.values() for s in held}
        assert self.used == sum(s.live for s in stretches.values())
        for slot, held in self._slots.items():
            assert all(slot in s.holders for s in held)
        for stretch in stretches.values():
            assert all(stretch in self._slots[slot] for slot in stretch.holders)
