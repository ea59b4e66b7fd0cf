"""Limits say the same as the sets they come from."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swapper.importing.matrix import BadExpression, allowed_sets
from swapper.importing.together import limits_of_conflicts, limits_of_sets

NAMES = "abcdef"
SETS = st.lists(st.frozensets(st.sampled_from(NAMES), min_size=1), max_size=5)


@given(SETS)
@example([frozenset("ab"), frozenset("bc"), frozenset("ac")])
@example([frozenset("abc"), frozenset("abd"), frozenset("acd"), frozenset("bcd")])
def test_exactly_the_allowed_sets_are_allowed(allowed: list[frozenset[str]]) -> None:
    limits = limits_of_sets(NAMES, allowed)
    for size in range(1, 5):
        for members in combinations(NAMES, size):
            may = size == 1 or any(set(members) <= one for one in allowed)
            kept = all(len(set(members) & set(of.members)) <= of.max_loaded for of in limits)
            assert kept == may, (members, limits)


@given(st.sets(st.frozensets(st.sampled_from(NAMES), min_size=2, max_size=2)))
def test_exactly_the_conflicts_are_kept_apart(pairs: set[frozenset[str]]) -> None:
    limits = limits_of_conflicts(NAMES, pairs)
    kept = {frozenset(pair) for limit in limits for pair in combinations(limit.members, 2)}
    assert kept == pairs


def expand(**sets: str) -> list[str]:
    names = {name: name for name in NAMES}
    return ["".join(sorted(one)) for one in allowed_sets(sets, names.get)]


def test_expressions() -> None:
    assert expand(s="a") == ["a"]
    assert expand(s="a & b") == ["ab"]
    assert expand(s="a | b & c") == ["a", "bc"]
    assert expand(s="(a|b)&(c|d)") == ["ac", "ad", "bc", "bd"]
    assert expand(x="a | b", y="+x & c") == ["a", "b", "ac", "bc"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({"s": "a &"}, "a model is missing"),
        ({"s": "(a"}, "a \\) is missing"),
        ({"s": "a b"}, "'b' is not expected"),
        ({"s": "z"}, "'z' is no model"),
        ({"s": "a % b"}, "'%' has no meaning"),
        ({"s": "+x"}, "there is no set 'x'"),
        ({"s": "+t", "t": "+s"}, "holds itself"),
        ({"s": "&".join(["(a|b|c|d)"] * 8)}, "more than 4096"),
    ],
)
def test_expressions_that_cannot_be_read(sets: dict[str, str], said: str) -> None:
    with pytest.raises(BadExpression, match=said):
        expand(**sets)
