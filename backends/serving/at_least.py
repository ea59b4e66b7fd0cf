"""`min_tokens`: answers that may not end before they have so many tokens. Kept by a grammar, so that engines
need not know of it."""

from __future__ import annotations

from collections.abc import Iterable

from backends.serving.engine import Constraint, Grammar


class AtLeast:
    """Keeps `serving.engine.Grammar`: what `within` allows (None: anything), but none of `ends` among the
    first `num_tokens` tokens. Where `within` lets nothing else follow the answer ends all the same."""

    def __init__(
        self, num_tokens: int, ends: Iterable[int], vocab_size: int, within: Grammar | None
    ) -> None:
        self._num_tokens = num_tokens
        self._size = 4 * ((vocab_size + 31) // 32)
        self._within = within
        self._free = b"\xff" * self._size
        self._others = int.from_bytes(self._free, "little")
        for token in set(ends):
            self._others &= ~(1 << token)

    def start(self) -> Constraint:
        """A constraint at the beginning of an answer."""
        return _Holding(self, self._within.start() if self._within else None)

    def mask(self, num_tokens: int, within: Constraint | None) -> bytes:
        """After `num_tokens` tokens of an answer that stands so in the grammar."""
        allowed = self._free if within is None else within.mask()
        if num_tokens >= self._num_tokens:
            return allowed
        held = int.from_bytes(allowed, "little") & self._others
        return held.to_bytes(self._size, "little") if held else allowed


class _Holding:
    """Keeps `serving.engine.Constraint`."""

    def __init__(self, rule: AtLeast, within: Constraint | None) -> None:
        self._rule = rule
        self._within = within
        self._num_tokens = 0

    def mask(self) -> bytes:
        """As the protocol says."""
        return self._rule.mask(self._num_tokens, self._within)

    def accept(self, token: int) -> bool:
        """As the protocol says."""
        self._num_tokens += 1
        return self._within is not None and self._within.accept(token)
