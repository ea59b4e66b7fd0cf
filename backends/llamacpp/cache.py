"""Finished sequences that are kept for whoever comes with the same beginning. Pure."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass

from backends.llamacpp.sequence import common_prefix


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The tokens one slot keeps, whose they are, and where they are if not in the slot's cells."""

    tokens: array[int]
    scope: str
    saved: object | None = None


class PrefixCache:
    """Kept sequences by slot, least recently used first. A scope sees only its own."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Kept] = OrderedDict()

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

    def saved(self, slot: int) -> object | None:
        """Where the tokens of `slot` are; None where they are in its cells, or it keeps nothing."""
        kept = self._kept.get(slot)
        return None if kept is None else kept.saved

    def length(self, slot: int) -> int:
        """How many tokens `slot` keeps."""
        return len(self._kept[slot].tokens)

    def add(self, slot: int, tokens: array[int], scope: str, saved: object | None = None) -> None:
        self._kept[slot] = Kept(tokens, scope, saved)

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

    def pop_oldest(self) -> int | None:
        """Forget the least recently used sequence; its slot, or None when nothing is kept."""
        return self._kept.popitem(last=False)[0] if self._kept else None

    def clear(self) -> list[int]:
        """Forget everything; the slots."""
        slots = list(self._kept)
        self._kept.clear()
        return slots
