"""Which models may be loaded at once, told as swapper's groups. Pure.

Others list what may run together; swapper's groups say of which models only so many may. A family of
allowed sets is the same as the smallest sets that are not allowed, each of which may lack one member.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

MOST_MEMBERS = 4  # of a smallest set that is not allowed; larger ones are hardly ever meant
MOST_NAMES = 40  # beyond, only pairs are looked at


@dataclass(frozen=True, slots=True)
class Limit:
    """Of these models, only so many at once."""

    members: tuple[str, ...]
    max_loaded: int


def limits_of_conflicts(names: Sequence[str], pairs: Iterable[frozenset[str]]) -> list[Limit]:
    """Few limits of one that together keep every pair apart; members in the order of `names`."""
    wanted = set(pairs)
    neighbours = {
        name: {other for other in names if frozenset((name, other)) in wanted} for name in names
    }
    limits = []
    while wanted:
        clique = _clique(names, neighbours, wanted)
        wanted -= {frozenset(pair) for pair in combinations(clique, 2)}
        limits.append(Limit(tuple(name for name in names if name in clique), 1))
    return limits


def _clique(
    names: Sequence[str], neighbours: dict[str, set[str]], wanted: set[frozenset[str]]
) -> set[str]:
    """A largest-first choice of models of which none may be beside another."""
    first = next(name for name in names if any(name in pair for pair in wanted))
    second = next(name for name in names if frozenset((first, name)) in wanted and name != first)
    clique = {first, second}
    for name in names:
        if name not in clique and clique <= neighbours[name]:
            clique.add(name)
    return clique


def limits_of_sets(names: Sequence[str], allowed: Iterable[frozenset[str]]) -> list[Limit]:
    """Limits under which just the subsets of the `allowed` sets may be loaded.

    Every model alone is allowed. Smallest sets that are not, of more than `MOST_MEMBERS`, are left out.
    """
    allowed = [*allowed, *(frozenset((name,)) for name in names)]
    pairs = {frozenset(pair) for pair in combinations(names, 2) if not _fits(pair, allowed)}
    limits = limits_of_conflicts(names, pairs)
    larger: list[frozenset[str]] = []
    for size in range(3, MOST_MEMBERS + 1 if len(names) <= MOST_NAMES else 3):
        for members in combinations(names, size):
            if any(frozenset(pair) in pairs for pair in combinations(members, 2)):
                continue
            if not _fits(members, allowed) and not any(bad <= set(members) for bad in larger):
                larger.append(frozenset(members))
                limits.append(Limit(members, size - 1))
    return limits


def _fits(members: Sequence[str], allowed: Iterable[frozenset[str]]) -> bool:
    return any(set(members) <= one for one in allowed)
