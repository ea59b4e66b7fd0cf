from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.llamacpp.cache import PrefixCache
from backends.llamacpp.sequence import common_prefix, token_array

TOKENS = st.lists(st.integers(0, 2), max_size=40).map(token_array)
SCOPES = st.sampled_from(["", "a", "b"])
KEPT = st.lists(st.tuples(TOKENS.filter(len), SCOPES), max_size=8)


def shared(left, right) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


@given(TOKENS, TOKENS, st.integers(0, 50))
def test_common_prefix_counts_as_a_loop_would(left, right, limit) -> None:
    assert common_prefix(left, right, limit) == min(shared(left, right), limit)


@given(st.integers(0, 600), st.integers(0, 600))
def test_common_prefix_of_long_arrays(length, cut) -> None:
    left = token_array(range(length))
    right = token_array([*range(cut), -1, -2])
    assert common_prefix(left, right, 10_000) == min(length, cut)


@given(KEPT, TOKENS, SCOPES, st.integers(0, 40))
def test_match_is_the_longest_of_the_scope(kept, tokens, scope, limit) -> None:
    cache = PrefixCache()
    for slot, (held, owner) in enumerate(kept):
        cache.add(slot, held, owner)
    best = max((min(shared(h, tokens), limit) for h, owner in kept if owner == scope), default=0)
    found = cache.match(tokens, scope, limit, whole=False)
    assert (found[1] if found else 0) == best
    if found:
        assert kept[found[0]][1] == scope
        assert shared(kept[found[0]][0], tokens) >= found[1]


@given(KEPT, TOKENS, SCOPES, st.integers(0, 40))
def test_whole_matches_end_where_the_kept_sequence_ends(kept, tokens, scope, limit) -> None:
    cache = PrefixCache()
    for slot, (held, owner) in enumerate(kept):
        cache.add(slot, held, owner)
    found = cache.match(tokens, scope, limit, whole=True)
    if found:
        held, owner = kept[found[0]]
        assert owner == scope
        assert tokens[: len(held)] == held
        assert found[1] == len(held) <= limit


def test_least_recently_used_goes_first() -> None:
    cache = PrefixCache()
    for slot in range(3):
        cache.add(slot, token_array([slot]), "")
    cache.touch(0)
    assert [cache.pop_oldest() for _ in range(4)] == [1, 2, 0, None]


def test_covering_sees_only_its_scope() -> None:
    cache = PrefixCache()
    cache.add(7, token_array([1, 2, 3]), "a")
    assert cache.covering(token_array([1, 2]), "a") == 7
    assert cache.covering(token_array([1, 2]), "b") is None
    assert cache.covered_by(token_array([1, 2, 3, 4]), "a") == [7]
    assert cache.covered_by(token_array([1, 2, 3, 4]), "b") == []
