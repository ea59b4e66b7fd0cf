"""The comparison of policies: that hindsight is what it says, and that the rule keeps its bound."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from bench.policy.contest import CONTESTANTS, bound_s, replay
from bench.policy.informed import Informed
from bench.policy.optimum import search
from bench.policy.plans import keeps
from bench.policy.traces import (
    Trace,
    agents,
    all_traces,
    bursts,
    chat_and_titles,
    people,
    trace_of,
)


def small(kind, seed, load_s=1.0):
    trace = Trace("small", load_s)
    dice = random.Random(seed)
    if kind == "agents":
        agents(trace, dice, 2, 0.3, turns=4)
    elif kind == "three agents":
        agents(trace, dice, 3, 0.0, turns=3)
    elif kind == "chat":
        chat_and_titles(trace, dice, turns=4)
    else:
        bursts(trace, dice, count=3)
    return trace


@pytest.mark.parametrize("kind", ["agents", "three agents", "chat", "bursts"])
@pytest.mark.parametrize("seed", range(3))
def test_no_contestant_that_keeps_the_bound_beats_an_exact_search(kind, seed):
    trace = small(kind, seed)
    found = search(trace, bound_s(trace), width=10_000)
    assert found is not None
    assert found.at_least_s == pytest.approx(found.waited_s)
    for contestant in CONTESTANTS.values():
        score = contestant(trace)
        assert score.waited_s >= found.waited_s - 1e-6 or not keeps(score, trace)


@pytest.mark.parametrize("kind", ["agents", "three agents", "chat", "bursts"])
def test_a_plan_played_in_the_world_waits_as_the_search_said_and_keeps_the_bound(kind):
    trace = small(kind, 5)
    found = search(trace, bound_s(trace), width=200)
    score = replay(trace, found.turns)
    assert score.waited_s == pytest.approx(found.waited_s)
    assert keeps(score, trace)


@pytest.mark.parametrize("load_s", [1.0, 5.0])
def test_a_player_without_foresight_grants_all_and_beats_no_exact_search(load_s):
    trace = Trace("small", load_s, room=2)
    for at, model, service_s in itertools.islice(people(random.Random(3), load_s), 7):
        trace.arrive(at, model, service_s)
    player = Informed(trace, samples=8)
    waited_s, loads = player.play()
    found = search(trace, math.inf, width=10_000)
    assert found.at_least_s == pytest.approx(found.waited_s)
    assert waited_s >= found.waited_s - 1e-6
    assert loads >= len(trace.models)


TRACES = [trace for seed in range(3) for trace in all_traces(seed)]


@pytest.mark.parametrize("trace", TRACES, ids=lambda t: f"{t.name}, {t.load_s:g} s, {t.seed}")
def test_the_rule_keeps_its_bound(trace):
    assert keeps(CONTESTANTS["swapper"](trace), trace)


def test_a_trace_is_the_same_every_time():
    one, two = trace_of("bursts", 1.0), trace_of("bursts", 1.0)
    assert [(at, r.model, r.service_s) for at, r in one.roots] == [
        (at, r.model, r.service_s) for at, r in two.roots
    ]
