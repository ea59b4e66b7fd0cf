"""Workers that sleep instead of stopping: when, at what charge, and how they come back."""

from __future__ import annotations

import random

import pytest

from swapper.core import events as ev
from swapper.core.registry import ModelSpec, Registry, Variant
from swapper.core.scheduler import Scheduler
from swapper.core.worker import WorkerState
from tests.core.world import World, model

GPU = {"cuda:0": 8, "host": 1}
STOP = ev.StopWorker("a#1", 10.0)
SLEEP = ev.SleepWorker("a#1", 300.0)
ASLEEP = {"host": 7}


def spec(name: str, needs: dict[str, int] = GPU, **changes: object) -> ModelSpec:
    values: dict[str, object] = {"load_s": 1.0, "ttl_s": 0.0, "engine": "paged", **changes}
    return ModelSpec(name, variants=(Variant(needs),), **values)  # type: ignore[arg-type]


class Play:
    """Plays events against models a, b and c, of which one fits on the GPU."""

    def __init__(self, *specs: ModelSpec, host: int = 20) -> None:
        models = {s.name: s for s in specs or (spec("a"), spec("b"), spec("c"))}
        self.scheduler = Scheduler(Registry(models, {"cuda:0": 10, "host": host}))
        self.notes: list[ev.Decided] = []

    def __call__(self, event: ev.Event, now: float) -> list[ev.Command]:
        commands = self.scheduler.handle(event, now)
        self.scheduler.check_integrity()
        self.notes += [c for c in commands if isinstance(c, ev.Decided)]
        return [c for c in commands if not isinstance(c, (ev.Decided, ev.Measured))]

    def loaded(self, name: str, worker_id: str, now: float) -> None:
        self(ev.LoadRequested(name), now)
        self(ev.WorkerReady(worker_id, can_sleep=True), now + 1.0)

    def charge(self, worker_id: str) -> dict[str, int]:
        return dict(self.scheduler.books.ledger.charge_of(worker_id))

    def state(self, name: str) -> WorkerState:
        return self.scheduler.books.workers[name].state


def asleep(**changes: object) -> Play:
    """a sleeps, and b has its place; the time is 110."""
    play = Play(spec("a", **changes), spec("b"), spec("c"))
    play.loaded("a", "a#1", 0.0)
    play(ev.RequestArrived(1, "b"), 100.0)
    play(ev.WorkerSlept("a#1", ASLEEP), 101.0)
    play(ev.WorkerReady("b#2", can_sleep=True), 102.0)
    play(ev.RequestEnded(1), 110.0)
    return play


def test_one_that_makes_room_sleeps_and_only_then_the_other_starts():
    play = Play()
    play.loaded("a", "a#1", 0.0)
    assert play(ev.RequestArrived(1, "b"), 100.0) == [SLEEP]
    assert play.charge("a#1") == {"cuda:0": 8, "host": 9}  # room for its sleep is set aside
    (start,) = play(ev.WorkerSlept("a#1", ASLEEP), 101.0)
    assert isinstance(start, ev.StartWorker)
    assert play.charge("a#1") == ASLEEP
    assert [n.action for n in play.notes if n.model == "a"] == ["start", "sleep"]
    assert "b needs" in play.notes[-2].reason


def test_a_busy_one_drains_first():
    play = Play()
    play.loaded("a", "a#1", 0.0)
    play(ev.RequestArrived(1, "a"), 100.0)
    play(ev.RequestArrived(2, "b"), 100.0)
    play(ev.TimePassed(), 102.0)
    assert play.state("a") is WorkerState.DRAINING
    assert play(ev.RequestEnded(1), 103.0) == [SLEEP]


def test_a_request_wakes_it_when_there_is_room_again():
    play = asleep()
    (sleep,) = play(ev.RequestArrived(2, "a"), 200.0)
    assert sleep == ev.SleepWorker("b#2", 300.0)
    assert play(ev.WorkerSlept("b#2", ASLEEP), 201.0) == [ev.WakeWorker("a#1", 300.0)]
    assert play.charge("a#1") == {"cuda:0": 8, "host": 7}
    assert play(ev.WorkerWoke("a#1"), 201.5) == [ev.Grant(2, "a#1", swap_s=1.0, load_s=0.5)]


def test_what_it_kept_for_its_sleep_alone_is_free_when_it_is_awake():
    for told, expected in (({}, 7), ({"host": 3}, 3), ({"host": 0}, 1), ({"host": 9}, 9)):
        play = asleep()
        play(ev.RequestArrived(2, "a"), 200.0)
        play(ev.WorkerSlept("b#2", ASLEEP), 201.0)
        play(ev.WorkerWoke("a#1", told), 201.5)
        assert play.charge("a#1") == {"cuda:0": 8, "host": expected}


def test_a_wake_is_what_a_swap_costs_from_then_on():
    play = asleep()
    demand = play.scheduler.books.demand["a"]
    assert demand.load_or() == 1.0
    play(ev.RequestArrived(2, "a"), 200.0)
    play(ev.WorkerSlept("b#2", ASLEEP), 201.0)
    play(ev.WorkerWoke("a#1"), 201.5)
    assert demand.load_or() == 0.5


def test_what_was_measured_of_sleep_is_told_for_the_history():
    play = asleep()
    play(ev.RequestArrived(2, "a"), 200.0)
    play(ev.WorkerSlept("b#2", ASLEEP), 201.0)
    commands = play.scheduler.handle(ev.WorkerWoke("a#1"), 201.5)
    assert ev.Measured("a", {}, 1.0, {}, wake_s=0.5, asleep=ASLEEP) in commands


def test_it_stops_where_the_host_has_no_room_for_it():
    play = Play(host=9)
    play.loaded("a", "a#1", 0.0)
    assert play(ev.RequestArrived(1, "b"), 100.0) == [STOP]  # 8 more, and b needs 1


def test_it_stops_where_it_would_still_hold_what_is_missing():
    play = Play(spec("a"), spec("b", {"host": 20}))
    play.loaded("a", "a#1", 0.0)
    assert play(ev.RequestArrived(1, "b"), 100.0) == [STOP]


def test_one_that_cannot_sleep_stops():
    play = Play()
    play(ev.LoadRequested("a"), 0.0)
    play(ev.WorkerReady("a#1"), 1.0)
    assert play(ev.RequestArrived(1, "b"), 100.0) == [STOP]


def test_a_place_of_max_loaded_comes_free_by_sleep():
    specs = {n: spec(n, {"host": 2}, groups=("",)) for n in "ab"}
    play = Play()
    play.scheduler = Scheduler(Registry(specs, {"host": 10}, {"": 1}))
    play.loaded("a", "a#1", 0.0)
    assert play(ev.RequestArrived(1, "b"), 100.0) == [SLEEP]
    assert len(play(ev.WorkerSlept("a#1", {"host": 2}), 101.0)) == 1


def test_sleepers_go_when_the_host_is_short():
    play = asleep()
    specs = {n: spec(n) for n in "abc"} | {"large": spec("large", {"host": 19})}
    play(ev.RegistryReplaced(Registry(specs, {"cuda:0": 10, "host": 20})), 150.0)
    assert play(ev.RequestArrived(2, "large"), 200.0) == [STOP]


def test_and_when_their_ttl_is_over():
    play = asleep(ttl_s=150.0)
    assert play.scheduler.next_deadline() == 151.0  # idle since 1
    assert play(ev.TimePassed(), 151.0) == [STOP]


def test_one_that_somebody_waits_for_does_not_expire():
    play = asleep(ttl_s=150.0)
    play(ev.RequestArrived(2, "b"), 140.0)
    assert play(ev.RequestArrived(3, "a"), 150.0) == []
    assert play(ev.TimePassed(), 151.0) == []
    assert play.scheduler.next_deadline() == 152.0  # b's quantum
    assert play(ev.RequestEnded(3), 151.5) == [STOP]  # its client has gone


def test_unloading_and_shutting_down_stop_it():
    for event in (ev.UnloadRequested("a"), ev.ShutdownRequested()):
        assert STOP in asleep()(event, 150.0)


def test_a_request_that_comes_while_it_falls_asleep_wakes_it():
    play = Play()
    play.loaded("a", "a#1", 0.0)
    play(ev.RequestArrived(1, "b"), 100.0)
    assert play(ev.RequestArrived(2, "a"), 100.5) == []
    play(ev.RequestEnded(1), 100.6)  # b's client has gone
    assert play(ev.WorkerSlept("a#1", ASLEEP), 101.0) == [ev.WakeWorker("a#1", 300.0)]


def test_one_that_does_not_sleep_or_wake_is_stopped_and_started_anew():
    play = Play()
    play.loaded("a", "a#1", 0.0)
    play(ev.RequestArrived(1, "b"), 100.0)
    assert play(ev.SleepFailed("a#1", "told to sleep: it did not answer"), 130.0) == [STOP]
    play = asleep()
    play(ev.RequestArrived(2, "a"), 200.0)
    play(ev.WorkerSlept("b#2", ASLEEP), 201.0)
    assert play(ev.SleepFailed("a#1", "told to wake: it answered 500"), 202.0) == [STOP]
    (start,) = play(ev.WorkerExited("a#1"), 203.0)
    assert isinstance(start, ev.StartWorker)


def test_one_that_dies_asleep_is_gone_and_its_memory_free():
    play = asleep()
    assert play(ev.WorkerExited("a#1", ev.Failure("crashed", "x")), 150.0) == []
    assert play.charge("a#1") == {}
    assert play(ev.RequestArrived(2, "a"), 200.0) == [ev.SleepWorker("b#2", 300.0)]


def test_a_gpu_is_read_before_what_a_sleeper_held_is_given_away():
    play = Play()
    reading = {"cuda:0": ev.DeviceReading(total=10, free=10)}
    play(ev.DevicesRead(reading, began_at=0.0), 0.0)
    play.loaded("a", "a#1", 0.0)
    play(ev.RequestArrived(1, "b"), 100.0)
    assert play(ev.WorkerSlept("a#1", ASLEEP), 101.0) == []
    for ours in (0, 8):  # whether or not the driver says whose it is
        full = {"cuda:0": ev.DeviceReading(total=10, free=2, ours=ours)}
        assert play(ev.DevicesRead(full, began_at=101.1), 101.2) == []
    (start,) = play(ev.DevicesRead(reading, began_at=101.3), 101.4)
    assert isinstance(start, ev.StartWorker)


def test_in_ping_pong_each_loads_once_and_wakes_are_quick():
    specs = {n: model(n, groups=("",)) for n in "ab"}
    run = World(Registry(specs, {"host": 100}, {"": 1}), wake_s=0.05)
    for name in "ab":
        run.client(name, 20, think_s=0.3)
    run.run()
    assert len(run.starts) == 2
    assert max(o.wait_s for o in run.outcomes[10:]) < 0.6


@pytest.mark.parametrize("seed", range(6))
def test_random_clients_of_sleepers_are_all_served(seed):
    """Room for two of five on the GPU, and on the host for some of the others to sleep."""
    dice = random.Random(seed)
    specs = {
        n: spec(n, {"cuda:0": 5, "host": 1}, parallel=4, queue_timeout_s=1e6, ttl_s=ttl_s)
        for n, ttl_s in zip("abcde", (0.0, 0.0, 30.0, 5.0, 1.0), strict=True)
    }
    budgets = {"cuda:0": 10, "host": dice.randint(10, 24)}
    run = World(Registry(specs, budgets), wake_s=0.1, stop_s=0.1)
    for name in "abcde":
        for _ in range(3):
            pauses = dice.uniform(0.01, 1.0), dice.uniform(0.0, 8.0), dice.uniform(0.0, 20.0)
            run.client(name, 20, *pauses)
    run.run()
    assert all(outcome.refused is None for outcome in run.outcomes)
    actions = {decision.action for decision in run.decisions}
    assert {"sleep", "wake", "expire"} <= actions
