"""Whole afternoons in milliseconds: unfair, overlapping clients against the real scheduler."""

from __future__ import annotations

import random

import pytest

from swapper.core import events as ev
from tests.core.world import World, model, registry

MODELS = [model(name) for name in "abcd"]


def world(count=2, host=1, **times):
    return World(registry(*MODELS[:count], host=host), **times)


def test_ping_pong_costs_two_loads_not_twenty():
    run = world()
    run.client("a", 10)
    run.client("b", 10)
    run.run()
    assert len(run.starts) == 2
    assert run.now < 5.0


def test_ping_pong_with_pauses_is_learned():
    run = world()
    run.client("a", 10, think_s=0.3)
    run.client("b", 10, think_s=0.3)
    run.run()
    assert len(run.starts) <= 8
    assert all(outcome.refused is None for outcome in run.outcomes)


def test_four_clients_take_turns():
    run = world(count=4)
    for spec in MODELS:
        run.client(spec.name, 10)
    run.run()
    assert len(run.starts) <= 6
    assert run.now < 12.0


def test_a_busy_model_cannot_starve_another():
    """Requests for a overlap, so that it is never idle: only a drain can let b in."""
    run = world()
    run.requests("a", [n * 0.05 for n in range(300)])
    lone = []
    run.at(1.0, lambda: lone.append(run.request("b")))
    run.run()
    assert lone[0].latency_s < 4.5
    assert max(o.latency_s for o in run.outcomes if o.model == "a") < 6.0


def test_collation():
    run = world()
    run.requests("a", [n * 0.1 for n in range(20)])
    run.requests("b", [0.05 + n * 0.1 for n in range(20)])
    run.run()
    assert len(run.starts) == 2
    assert len([o for o in run.outcomes if o.ended_at is not None and not o.refused]) == 40
    assert run.now < 3.4


def test_what_is_left_of_a_long_queue_waits_for_its_next_turn():
    """Else it would be the oldest, and load again and again before the one it was moved out for."""
    run = World(registry(model("a"), model("long", parallel=1)))
    run.requests("long", [0.0] * 40, service_s=1.0)
    lone = []
    run.at(0.5, lambda: lone.append(run.request("a")))
    run.run()
    assert [name for _, name in run.starts] == ["long", "a", "long"]
    assert lone[0].wait_s < 5.0


def test_a_slow_stop_delays_nobody_else():
    run = World(registry(*MODELS[:3], host=2), stop_s=4.0)
    for name in "ab":
        run.at(0.0, lambda name=name: run.request(name) and None)
    run.at(10.0, lambda: run.request("c") and None)
    run.requests("b", [10.0 + n * 0.01 for n in range(300)], service_s=0.001)
    run.run()
    assert max(o.wait_s for o in run.outcomes if o.model == "b" and o.arrived_at >= 10.0) == 0.0


def test_one_that_fails_to_load_affects_nobody_else():
    run = world(count=2, host=2)
    run.failing["a"] = ev.Failure("bad_file", "x")
    run.requests("a", [n * 0.2 for n in range(100)])
    run.client("b", 50)
    run.run()
    assert {o.refused for o in run.outcomes if o.model == "a"} == {"load_failed"}
    assert {o.refused for o in run.outcomes if o.model == "b"} == {None}
    assert len([s for s in run.starts if s[1] == "a"]) <= 6


@pytest.mark.parametrize("seed", range(8))
def test_random_overlapping_clients_are_all_served(seed):
    """Room for two of four, loads and answers of every length; nobody waits longer than the others'
    quanta, loads and longest answers."""
    dice = random.Random(seed)
    load_s = {name: dice.uniform(0.2, 5.0) for name in "abcd"}
    specs = [
        model(name, size=dice.randint(1, 2), parallel=4, queue_timeout_s=1e6) for name in "abcd"
    ]
    run = World(registry(*specs, host=2), load_s=load_s, stop_s=0.1)
    for name in "abcd":
        for _ in range(6):
            run.client(
                name, 30, dice.uniform(0.01, 2.0), dice.uniform(0, 3.0), dice.uniform(0, 20.0)
            )
    run.run()
    assert all(outcome.refused is None for outcome in run.outcomes)
    # Each of the three others may load, keep its quantum and finish its longest answers once.
    swap_s = 2 * max(load_s.values())
    bound = 3 * (max(load_s.values()) + swap_s + 2 * 2.0 + 0.2) + swap_s
    assert max(outcome.wait_s for outcome in run.outcomes) < 2 * bound
