"""Whole afternoons in milliseconds: unfair, overlapping clients against the real scheduler."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapper.core import events as ev
from swapper.core.tenure import QUANTUM
from tests.core.world import World, model, registry

MODELS = [model(name) for name in "abcd"]


def world(count=2, host=1, **times):
    return World(registry(*MODELS[:count], host=host), **times)


def real(count=2, **changes):
    """Worker programs as they are: 1.0 s to load, what Python takes to start, and a moment to stop."""
    specs = [model(name, load_s=1.15, **changes) for name in "abcd"[:count]]
    return World(registry(*specs), load_s=1.15, stop_s=0.05)


def test_ping_pong_costs_two_loads_not_twenty():
    run = real()
    run.client("a", 10)
    run.client("b", 10)
    run.run()
    assert len(run.starts) <= 3
    assert max(outcome.ended_at for outcome in run.outcomes) < 6.0


@pytest.mark.parametrize("think_s", [0.001, 0.03, 0.1, 0.3, 0.5])
def test_ping_pong_with_pauses_is_learned(think_s):
    run = real()
    run.client("a", 10, think_s=think_s)
    run.client("b", 10, think_s=think_s)
    run.run()
    assert len(run.starts) <= 8
    assert all(outcome.refused is None for outcome in run.outcomes)


def test_four_clients_take_turns():
    run = real(count=4)
    for name in "abcd":
        run.client(name, 10)
    run.run()
    assert len(run.starts) <= 6
    assert max(outcome.ended_at for outcome in run.outcomes) < 12.0


def beside_a_busy_one(again_at=None, **changes):
    """Requests for a overlap for 15 s, so that it is never idle: only a drain can let b in. The last
    request for b, and the 99th percentile of a."""
    run = real(**changes)
    run.requests("a", [n * 0.05 for n in range(300)])
    lone = []
    for at in (1.0, again_at):
        if at is not None:
            run.at(at, lambda: lone.append(run.request("b")))
    run.run()
    latencies = sorted(o.latency_s for o in run.outcomes if o.model == "a")
    return lone[-1].latency_s, latencies[len(latencies) * 99 // 100]


def test_a_busy_model_cannot_starve_another():
    lone_s, busy_p99_s = beside_a_busy_one()
    assert lone_s < 4.5
    assert busy_p99_s < 6.0


@pytest.mark.parametrize("max_wait_s", [0.1, 0.5, 1.0, 2.0])
def test_max_wait_tightens_the_bound(max_wait_s):
    """The other's turn with its answers, one load, and the answer itself; and the stop, as long as it is
    not known how long that takes. Of the other's own load 0.15 s are still to come."""
    lone_s, _ = beside_a_busy_one(max_wait_s=max_wait_s)
    assert lone_s < max(max_wait_s, 0.25) + 0.05 + 1.15 + 0.1 + 0.01
    assert (
        beside_a_busy_one(max_wait_s=max_wait_s, again_at=11.0)[0]
        < max(max_wait_s, 0.15) + 1.15 + 0.1 + 0.01
    )


def test_a_higher_priority_waits_for_one_answer_and_one_load():
    run = real(count=1)
    run = World(registry(run.registry.models["a"], model("urgent", load_s=1.15, priority=1)), 1.15)
    run.requests("a", [n * 0.05 for n in range(300)])
    urgent = []
    for at in (3.0, 8.0, 13.0):
        run.at(at, lambda: urgent.append(run.request("urgent")))
    run.run()
    assert max(outcome.wait_s for outcome in urgent) < 0.1 + 1.15 + 0.01


def test_a_lower_priority_beside_one_that_is_never_idle_is_served_again_and_again():
    """Each of its requests waits for the other's load, its two quanta, its longest answer, and a load."""
    run = World(registry(model("low"), model("high", priority=5)), load_s=1.0)
    run.requests("high", [n * 0.05 for n in range(1200)])
    run.client("low", 8, start=1.0)
    run.run()
    lows = [outcome.wait_s for outcome in run.outcomes if outcome.model == "low"]
    assert len(lows) == 8
    assert max(lows) < 1.0 + 2 * 2.0 + 0.1 + 1.0 + 0.01
    lost_s = len([at for at, _ in run.starts if at < 60.0]) * 1.0
    assert lost_s <= 60.0 / 3 + 1.0


def test_collation():
    run = real(parallel=32)  # eight at a time would take three rounds
    run.requests("a", [n * 0.1 for n in range(20)])
    run.requests("b", [0.05 + n * 0.1 for n in range(20)])
    run.run()
    assert len(run.starts) == 2
    assert all(outcome.refused is None for outcome in run.outcomes)
    assert max(outcome.ended_at for outcome in run.outcomes) < 3.4


def test_a_pause_too_long_to_hold_for_is_soon_not_held_for():
    """Somebody reads for ten loads between two questions; somebody else waits for the place."""
    run = real()
    run.client("a", 12, think_s=11.5)
    run.client("b", 12, think_s=11.5, start=2.0)
    run.run()
    lates = [outcome.wait_s for outcome in run.outcomes[-6:]]
    assert max(lates) == pytest.approx(1.2)


def test_what_is_left_of_a_long_queue_waits_for_its_next_turn():
    """Else it would be the oldest, and load again and again before the one it was moved out for."""
    run = World(registry(model("a"), model("long", parallel=1)))
    run.requests("long", [0.0] * 40, service_s=1.0)
    lone = []
    run.at(0.5, lambda: lone.append(run.request("a")))
    run.run()
    assert [name for _, name in run.starts] == ["long", "a", "long"]
    assert lone[0].wait_s < 5.0


def test_a_place_whose_model_still_loads_is_one_of_those_that_have_their_quantum():
    """Room for two: whoever waits lets both have their 2 s before the busy one has to drain, though the
    other is not up yet."""
    run = World(registry(*MODELS[:3], host=2), load_s={"a": 1.0, "b": 1.0, "c": 30.0})
    run.requests("a", [n * 0.05 for n in range(400)])
    run.requests("c", [4.0])
    run.requests("b", [5.0])
    run.run()
    assert [name for _, name in run.starts][:3] == ["a", "c", "b"]
    assert run.starts[2][0] == pytest.approx(5.0 + 2 * 2.0, abs=0.15)


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


clients = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.floats(0.05, 3.0),  # a request
        st.floats(0.0, 3.0),  # then so long a pause; or, overlapping, until the next one anyway
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(clients=clients, loads=st.tuples(*[st.floats(0.2, 5.0)] * 3), stop_s=st.floats(0.0, 0.5))
def test_nobody_waits_longer_than_the_others_turns(clients, loads, stop_s):
    """Unfair clients, overlapping as they like: every other model has one turn at most before it,
    its load, its quantum, its longest answer and its stop."""
    load_s = dict(zip("abc", loads, strict=True))
    specs = [model(n, load_s=load_s[n], parallel=10**6, queue_timeout_s=1e6) for n in "abc"]
    run = World(registry(*specs), load_s=load_s, stop_s=stop_s)
    longest_s = dict.fromkeys("abc", 0.0)
    for name, service_s, pause_s, is_patient in clients:
        longest_s[name] = max(longest_s[name], service_s)
        if is_patient:
            run.client(name, 25, service_s, pause_s)
        else:
            run.requests(name, [n * max(0.1, pause_s / 4) for n in range(100)], service_s)
    run.run()
    turn_s = {
        n: load_s[n] + QUANTUM * (load_s[n] + max(loads)) + longest_s[n] + stop_s for n in "abc"
    }
    for outcome in run.outcomes:
        own_s = longest_s[outcome.model] + stop_s + load_s[outcome.model]
        others_s = sum(s for name, s in turn_s.items() if name != outcome.model)
        assert outcome.wait_s <= own_s + others_s + 1e-6


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(2, 4),
    load_s=st.floats(0.5, 50.0),
    service=st.floats(0.2, 2.0),  # of a load
    patient=st.integers(0, 2),
)
def test_a_third_of_the_time_is_lost_at_most(count, load_s, service, patient):
    """While everybody is busy and everybody waits, a load buys a residency of twice its cost."""
    specs = [model(n, load_s=load_s, parallel=10**6, queue_timeout_s=1e6) for n in "abcd"[:count]]
    run = World(registry(*specs), load_s=load_s)
    until = 30 * load_s
    for name in "abcd"[:count]:
        run.requests(name, [n * load_s / 6 for n in range(180)], service * load_s)
        for _ in range(patient):
            run.client(name, 50, service * load_s)
    run.run(until)
    assert len([at for at, _ in run.starts if at < until]) * load_s <= until / 3 + load_s


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
