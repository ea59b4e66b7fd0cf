from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.llamacpp.pace import TARGET_S, Pace


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(0, 100)), max_size=50))
def test_stays_within_its_bounds(steps) -> None:
    pace = Pace(64, 512)
    for tokens, seconds in steps:
        assert 64 <= pace.record(tokens, seconds) <= 512


@given(st.floats(1e-5, 1.0))
def test_settles_at_the_largest_step_that_is_short_enough(token_s) -> None:
    pace = Pace(64, 512)
    seen = [pace.record(pace.budget, pace.budget * token_s) for _ in range(20)]
    assert len(set(seen[10:])) == 1
    assert pace.budget == 64 or pace.budget * token_s <= TARGET_S
    assert pace.budget == 512 or 2 * pace.budget * token_s >= 0.8 * TARGET_S


def test_a_fixed_budget_stays() -> None:
    pace = Pace(512, 512)
    assert pace.record(512, 60.0) == 512


def test_decodes_say_nothing_about_prompts() -> None:
    pace = Pace(64, 512)
    assert pace.record(8, 10.0) == 128
