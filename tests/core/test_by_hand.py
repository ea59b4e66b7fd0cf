"""What an operator does by hand: sleep, wake, pin and unpin."""

from __future__ import annotations

import math

from swapper.core import events as ev
from swapper.core.registry import Registry
from swapper.core.worker import WorkerState
from tests.core.test_sleep import ASLEEP, SLEEP, STOP, Play, spec

WAKE = ev.WakeWorker("a#1", 300.0)


def loaded(*specs, host=20, **changes):
    """a is loaded, and b if it is given; the time is 10."""
    play = Play(*(specs or (spec("a", **changes), spec("b"))), host=host)
    play.loaded("a", "a#1", 0.0)
    return play


def kinds(commands):
    return [type(c).__name__ for c in commands]


def actions(play, name="a"):
    return [note.action for note in play.notes if note.model == name]


class TestSleep:
    """Put to sleep, and woken."""

    def test_an_idle_one_sleeps_at_once_and_keeps_what_sleep_takes(self):
        play = loaded()
        assert play(ev.SleepRequested("a"), 10.0) == [SLEEP]
        assert play(ev.WorkerSlept("a#1", ASLEEP), 11.0) == []
        assert play.state("a") is WorkerState.SLEEPING
        assert play.charge("a#1") == ASLEEP

    def test_a_busy_one_finishes_its_answers_and_takes_nothing_new(self):
        play = loaded()
        play(ev.RequestArrived(1, "a"), 10.0)
        assert play(ev.SleepRequested("a"), 11.0) == []
        assert play(ev.RequestArrived(2, "a"), 12.0) == []
        assert play(ev.RequestEnded(1), 13.0) == [SLEEP]
        # Nobody is refused for it: who waits has it woken.
        assert play(ev.WorkerSlept("a#1", ASLEEP), 14.0) == [WAKE]
        assert kinds(play(ev.WorkerWoke("a#1"), 15.0)) == ["Grant"]

    def test_a_load_wakes_it(self):
        play = loaded()
        play(ev.SleepRequested("a"), 10.0)
        play(ev.WorkerSlept("a#1", ASLEEP), 11.0)
        assert play(ev.LoadRequested("a"), 12.0) == [WAKE]

    def test_a_load_that_comes_before_it_sleeps_lets_it_serve_on(self):
        play = loaded()
        play(ev.RequestArrived(1, "a"), 10.0)
        play(ev.SleepRequested("a"), 11.0)
        assert play(ev.LoadRequested("a"), 12.0) == []
        assert play.state("a") is WorkerState.READY
        assert play(ev.RequestEnded(1), 13.0) == []

    def test_a_load_that_comes_while_it_falls_asleep_wakes_it(self):
        play = loaded()
        play(ev.SleepRequested("a"), 10.0)
        assert play(ev.LoadRequested("a"), 10.5) == []
        assert play(ev.WorkerSlept("a#1", ASLEEP), 11.0) == [WAKE]

    def test_unloading_is_the_last_word(self):
        play = loaded()
        play(ev.RequestArrived(1, "a"), 10.0)
        play(ev.SleepRequested("a"), 11.0)
        play(ev.UnloadRequested("a"), 12.0)
        assert play(ev.RequestEnded(1), 13.0) == [STOP]

    def test_where_the_host_has_no_room_for_it_it_stays(self):
        play = loaded(host=8)  # 8 more than the 1 that it has there
        assert play(ev.SleepRequested("a"), 10.0) == []
        assert play.state("a") is WorkerState.READY
        assert actions(play) == ["start", "stay"]

    def test_where_the_room_is_gone_when_its_answers_are_done_it_stops(self):
        play = loaded()
        play(ev.RequestArrived(1, "a"), 10.0)
        play(ev.SleepRequested("a"), 11.0)
        play(ev.MemoryLent("loan", {"host": 15}), 12.0)
        assert play(ev.RequestEnded(1), 13.0) == [STOP]

    def test_one_that_cannot_or_does_not_serve_yet_stays_as_it_is(self):
        play = Play(spec("a"), spec("b"))
        play(ev.LoadRequested("a"), 0.0)
        assert play(ev.SleepRequested("a"), 0.5) == []
        play(ev.WorkerReady("a#1"), 1.0)
        assert play(ev.SleepRequested("a"), 2.0) == []
        assert play.state("a") is WorkerState.READY
        assert play(ev.SleepRequested("b"), 2.0) == []

    def test_its_ttl_ends_its_sleep_too(self):
        play = loaded(ttl_s=100.0)
        play(ev.SleepRequested("a"), 10.0)
        play(ev.WorkerSlept("a#1", ASLEEP), 11.0)
        assert play.scheduler.next_deadline() == 101.0
        assert play(ev.TimePassed(), 101.0) == [STOP]


class TestLoad:
    """Asked for while it goes."""

    def test_a_load_that_comes_while_it_is_unloaded_loads_it_anew(self):
        play = loaded()
        assert play(ev.UnloadRequested("a"), 10.0) == [STOP]
        assert play(ev.LoadRequested("a"), 10.5) == []
        assert kinds(play(ev.WorkerExited("a#1"), 11.0)) == ["StartWorker"]

    def test_one_that_is_preloaded_in_another_way_comes_up_when_the_old_worker_is_gone(self):
        play = loaded()
        models = {n: spec(n) for n in "ab"}
        changed = ev.RegistryReplaced(
            Registry(models, {"cuda:0": 10, "host": 20}), changed=frozenset("a")
        )
        assert play(changed, 10.0) == [STOP]
        assert play(ev.LoadRequested("a"), 10.0) == []
        assert kinds(play(ev.WorkerExited("a#1"), 11.0)) == ["StartWorker"]

    def test_one_that_goes_for_another_comes_back_after_it(self):
        play = loaded()
        play(ev.RequestArrived(1, "b"), 10.0)
        play(ev.LoadRequested("a"), 10.5)
        (start,) = play(ev.WorkerSlept("a#1", ASLEEP), 11.0)
        assert start.model == "b"  # for whom room was made
        (grant,) = play(ev.WorkerReady("b#2", can_sleep=True), 12.0)
        assert grant.request_id == 1

    def test_nothing_is_loaded_at_the_end(self):
        play = loaded()
        play(ev.ShutdownRequested(), 10.0)
        play(ev.LoadRequested("a"), 10.5)
        assert play(ev.WorkerExited("a#1"), 11.0) == []


class TestPin:
    """Pinned and unpinned at run time."""

    def test_it_is_moved_out_for_nobody_until_it_is_unpinned(self):
        play = loaded()
        play(ev.PinChosen("a", True), 10.0)
        assert kinds(play(ev.RequestArrived(1, "b"), 11.0)) == ["Reject"]
        play(ev.PinChosen("a", False), 12.0)
        assert play(ev.RequestArrived(2, "b"), 13.0) == [SLEEP]
        assert actions(play) == ["start", "pin", "unpin", "sleep"]

    def test_what_the_configuration_pins_can_be_unpinned(self):
        play = loaded(pin=True)
        play(ev.PinChosen("a", False), 10.0)
        assert play(ev.RequestArrived(1, "b"), 11.0) == [SLEEP]

    def test_one_that_drains_for_another_serves_again(self):
        play = loaded()
        play(ev.RequestArrived(1, "a"), 10.0)
        play(ev.RequestArrived(2, "b"), 10.0)
        play(ev.TimePassed(), 12.0)
        assert play.state("a") is WorkerState.DRAINING
        assert kinds(play(ev.PinChosen("a", True), 12.5)) == ["Reject"]
        assert play.state("a") is WorkerState.READY
        assert play(ev.RequestEnded(1), 13.0) == []

    def test_but_not_one_that_is_unloaded_by_hand(self):
        play = loaded()
        play(ev.RequestArrived(1, "a"), 10.0)
        play(ev.UnloadRequested("a"), 11.0)
        play(ev.PinChosen("a", True), 12.0)
        assert play(ev.RequestEnded(1), 13.0) == [STOP]

    def test_it_stays_for_loans_too_until_it_is_unpinned(self):
        play = loaded()
        play(ev.PinChosen("a", True), 10.0)
        assert play(ev.MemoryLent("loan", {"cuda:0": 5}), 11.0) == []
        assert play(ev.PinChosen("a", False), 12.0) == [STOP]

    def test_it_can_be_put_to_sleep_and_its_sleep_is_pinned(self):
        play = loaded(spec("a"), spec("b", {"host": 14}))
        play(ev.PinChosen("a", True), 10.0)
        assert play(ev.SleepRequested("a"), 11.0) == [SLEEP]
        play(ev.WorkerSlept("a#1", ASLEEP), 12.0)
        assert kinds(play(ev.RequestArrived(1, "b"), 13.0)) == ["Reject"]

    def test_a_client_cannot_take_it_away_sooner_than_its_ttl_but_may_keep_it_longer(self):
        for stays_s, expected in (
            (0.0, 101.0),
            (50.0, 101.0),
            (500.0, 501.0),
            (math.inf, math.inf),
        ):
            play = loaded(ttl_s=100.0)
            play(ev.PinChosen("a", True), 10.0)
            play(ev.StayChosen("a", stays_s), 11.0)
            assert play.scheduler.next_deadline() == expected

    def test_nor_by_what_it_chose_before(self):
        play = loaded(ttl_s=100.0)
        play(ev.StayChosen("a", 50.0), 10.0)
        play(ev.PinChosen("a", True), 11.0)
        assert play(ev.TimePassed(), 51.0) == []
        assert play(ev.PinChosen("a", False), 52.0) == [STOP]

    def test_a_reload_keeps_it_and_what_is_removed_is_forgotten(self):
        play = loaded()
        budgets = {"cuda:0": 10, "host": 20}
        both, one = {n: spec(n) for n in "ab"}, {"b": spec("b")}
        play(ev.PinChosen("a", True), 10.0)
        play(ev.RegistryReplaced(Registry(both, budgets)), 11.0)
        assert play.scheduler.books.is_pinned("a")
        play(ev.RegistryReplaced(Registry(one, budgets)), 12.0)
        play(ev.RegistryReplaced(Registry(both, budgets)), 13.0)
        assert not play.scheduler.books.is_pinned("a")

    def test_what_the_configuration_comes_to_say_too_is_its_word_from_then_on(self):
        play = loaded()
        budgets = {"cuda:0": 10, "host": 20}
        play(ev.PinChosen("a", True), 10.0)
        for pin in (True, False):
            play(ev.RegistryReplaced(Registry({"a": spec("a", pin=pin)}, budgets)), 11.0)
            assert play.scheduler.books.is_pinned("a") is pin
