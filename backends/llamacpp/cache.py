"""Finished sequences whose KV cells are kept for whoever comes with the same beginning. Pure.

On a CPU a kept cell is not free: every running row steps over it in every layer, a few percent of a step
for a thousand of them where the model is small. So how much is kept follows from what it is good for: the
tokens of what was dropped are remembered a while (as ghosts), and a prompt that would have found its
beginning there doubles the room; what is dropped without ever having been of use shrinks it.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from dataclasses import dataclass

from backends.llamacpp.sequence import common_prefix

NUM_GHOSTS = 64
MIN_MISSED = 64  # tokens that must have been lost by dropping something for it to count


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The tokens whose cells one slot keeps, and whose they are."""

    tokens: array[int]
    scope: str


class PrefixCache:
    """Kept sequences by slot, least recently used first. A scope sees only its own."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room  # cells that may be kept; None: as many as nobody else needs
        self._least_room = room
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._useful: set[int] = set()
        self._ghosts: deque[Kept] = deque(maxlen=NUM_GHOSTS)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_tokens(self) -> int:
        return sum(len(kept.tokens) for kept in self._kept.values())

    def match(
        self, tokens: array[int], scope: str, limit: int, *, whole: bool
    ) -> tuple[int, int] | None:
        """The slot that shares most with `tokens`, and how much; None where nothing is shared.

        At most `limit` tokens count. `whole`: only sequences that can be taken to their very end,
        for models whose state cannot be cut.
        """
        best: tuple[int, int] | None = None
        for slot, kept in self._kept.items():
            if kept.scope != scope or (whole and len(kept.tokens) > limit):
                continue
            length = common_prefix(kept.tokens, tokens, limit)
            if length < (len(kept.tokens) if whole else 1):
                continue
            if best is None or length >= best[1]:
                best = slot, length
        return best

    def touch(self, slot: int) -> None:
        """`slot` was of use just now."""
        self._kept.move_to_end(slot)
        self._useful.add(slot)

    @property
    def slots(self) -> list[int]:
        return list(self._kept)

    def learn(self, tokens: array[int], scope: str, found: int, most: int) -> None:
        """`tokens` come, and `found` of them are there: more room, up to `most`, if dropping cost some."""
        if self.room is None:
            return
        for ghost in self._ghosts:
            if ghost.scope == scope:
                length = common_prefix(ghost.tokens, tokens, len(tokens))
                if length >= found + MIN_MISSED:
                    self.room = min(2 * self.room, most)
                    self._ghosts.remove(ghost)
                    return

    def add(self, slot: int, tokens: array[int], scope: str) -> None:
        self._kept[slot] = Kept(tokens, scope)

    def covering(self, tokens: array[int], scope: str) -> int | None:
        """A slot that keeps all of `tokens`, and so makes keeping them again pointless."""
        for slot, kept in self._kept.items():
            if kept.scope == scope and kept.tokens[: len(tokens)] == tokens:
                return slot
        return None

    def covered_by(self, tokens: array[int], scope: str) -> list[int]:
        """Slots whose every token `tokens` has too."""
        return [
            slot
            for slot, kept in self._kept.items()
            if kept.scope == scope and tokens[: len(kept.tokens)] == kept.tokens
        ]

    def remove(self, slot: int) -> None:
        del self._kept[slot]
        self._useful.discard(slot)

    def pop_oldest(self) -> int | None:
        """Forget the least recently used sequence; its slot, or None when nothing is kept."""
        if not self._kept:
            return None
        slot, kept = self._kept.popitem(last=False)
        if slot in self._useful:
            self._useful.remove(slot)
        elif self.room is not None and self._least_room is not None:
            self.room = max(self._least_room, self.room - len(kept.tokens) // 8)
        if self.room is not None:
            self._ghosts.append(kept)
        return slot

    def clear(self) -> list[int]:
        """Forget everything; the slots."""
        slots = list(self._kept)
        self._kept.clear()
        self._useful.clear()
        return slots
