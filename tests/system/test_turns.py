"""Turns among models that swap, played against the real proxy and real worker processes.

The scenarios are those of `bench/swap`, which measures them; workers take 1.0 s to get ready and 100 ms
for an answer. Here numbers of starts are exact, and times have twice what is asked for, since whoever
runs tests may be doing something else as well.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from bench.swap import scenarios
from bench.swap.scenarios import ANSWER_S, READY_S, percentile


@pytest.fixture
def playing(serve, tmp_path):
    """Clients of a new server, and how often its workers were started."""
    starts = tmp_path / "starts"
    starts.touch()

    @asynccontextmanager
    async def playing(models, **settings):
        swapper = serve(scenarios.configuration(models, starts, **settings))
        async with scenarios.clients(swapper.url) as run:
            yield run, lambda: starts.read_text().split()

    return playing


async def test_ping_pong_without_thought_costs_three_starts_at_most(playing):
    async with playing("ab") as (run, starts):
        await scenarios.ping_pong(run, "ab")
        assert len(run.answers) == 20
        assert run.num_failed == 0
        assert len(starts()) <= 3
        assert run.makespan_s < 2 * 6.0


async def test_ping_pong_with_thought_costs_eight_starts_at_most_and_fails_nobody(playing):
    async with playing("ab") as (run, starts):
        await scenarios.ping_pong(run, "ab", think_s=0.3)
        assert len(run.answers) == 20
        assert run.num_failed == 0
        assert len(starts()) <= 8


async def test_four_models_cost_six_starts_at_most(playing):
    async with playing("abcd") as (run, starts):
        await scenarios.ping_pong(run, "abcd")
        assert len(run.answers) == 40
        assert run.num_failed == 0
        assert len(starts()) <= 6
        assert run.makespan_s < 2 * 12.0


async def test_a_lone_request_is_answered_though_another_model_is_never_idle(playing):
    async with playing("ab") as (run, starts):
        answer = await scenarios.lone(run, is_short=True)
        assert run.num_failed == 0
        assert answer.took_s < 2 * 4.5
        assert percentile(run.times("a"), 0.99) < 2 * 6.0
        assert len(starts()) <= 4
        assert starts()[:2] == ["a", "b"]


async def test_max_wait_bounds_how_long_a_lone_request_waits(playing):
    async with playing("ab", max_wait="500ms") as (run, starts):
        answer = await scenarios.lone(run, is_short=True)
        assert run.num_failed == 0
        # max_wait, the longest answer in flight, its own load and answer
        assert answer.took_s < 2 * (0.5 + ANSWER_S + READY_S + ANSWER_S)
        assert starts()[:2] == ["a", "b"]


async def test_requests_that_alternate_are_collated_into_two_loads(playing):
    async with playing("ab") as (run, starts):
        await scenarios.alternating(run)
        assert len(run.answers) == 40
        assert run.num_failed == 0
        assert starts() == ["a", "b"]
        assert run.makespan_s < 2 * 3.4


async def test_a_worker_that_takes_four_seconds_to_stop_delays_nobody_else(playing):
    async with playing("ab", max_loaded=2, stop_s=4.0) as (run, starts):
        seen = await scenarios.slow_stop(run)
        assert run.num_failed == 0
        assert seen.stop_took_s >= 4.0
        assert len(seen.meanwhile) > 50
        assert seen.delay_s(0.9) < 2 * 0.020
        assert max(seen.meanwhile) < 2.0  # noise of a busy machine, but no stop of 4 s
        assert sorted(starts()) == ["a", "b"]  # both fit, and load side by side
