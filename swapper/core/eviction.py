"""Whom to move out for whom, as a pure function.

Keeping a model is worth the time to bring it back times how often it is wanted; it costs the bytes
it holds of what is short (greedy-dual-size with frequency: Cherkasova 1998). The cheapest per byte
goes first, idle before busy, since a busy one is waited for. A last pass spares whoever turned out
not to be needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swapper.core.registry import Bytes


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that may be moved out. `cost_s`: expected seconds to be lost by moving it."""

    worker_id: str
    holds: Bytes
    cost_s: float
    is_idle: bool


def choose_victims(missing: Bytes, candidates: Iterable[Candidate]) -> tuple[Candidate, ...] | None:
    """The candidates to move out so that all of `missing` (each entry > 0) comes free; None when all
    of them together would not do."""
    ranked = sorted(candidates, key=lambda c: (not c.is_idle, _price(c, missing), c.worker_id))
    chosen: list[Candidate] = []
    left = dict(missing)
    for candidate in ranked:
        if not left:
            break
        if any(candidate.holds.get(name, 0) > 0 for name in left):
            chosen.append(candidate)
            left = _left(left, candidate.holds)
    return None if left else tuple(_spare(missing, chosen))


def _price(candidate: Candidate, missing: Bytes) -> float:
    """Seconds lost for each part of the shortage that the candidate would cover."""
    covered = sum(min(candidate.holds.get(name, 0), lack) / lack for name, lack in missing.items())
    return candidate.cost_s / covered if covered else float("inf")


def _left(missing: Bytes, holds: Bytes) -> dict[str, int]:
    rest = {name: lack - holds.get(name, 0) for name, lack in missing.items()}
    return {name: lack for name, lack in rest.items() if lack > 0}


def _spare(missing: Bytes, chosen: Sequence[Candidate]) -> list[Candidate]:
    """Drop, dearest and busiest first, whoever is not needed after all."""
    kept = list(chosen)
    for candidate in sorted(chosen, key=lambda c: (c.is_idle, -c.cost_s)):
        others = [c for c in kept if c is not candidate]
        left = dict(missing)
        for other in others:
            left = _left(left, other.holds)
        if not left:
            kept = others
    return kept
