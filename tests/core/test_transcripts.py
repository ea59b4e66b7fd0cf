"""The scheduler, event by event: what is told, and exactly what is to be done."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from swapper.core import events as ev
from swapper.core.ledger import BrokenBooks
from swapper.core.registry import ModelSpec, Registry, Variant
from swapper.core.scheduler import Scheduler
from swapper.core.worker import IllegalMove, WorkerState
from tests.core.world import model, registry

BAD_FILE = ev.Failure("bad_file", "it is truncated")


class Play:
    """Plays events against a scheduler and gives back the commands, notes left out."""

    def __init__(self, *specs, host=1, **limits):
        self.scheduler = Scheduler(registry(*specs, host=host, **limits))
        self.now = 0.0

    def __call__(self, event, now=None):
        self.now = self.now if now is None else now
        commands = self.scheduler.handle(event, self.now)
        self.scheduler.check_integrity()
        return [c for c in commands if not isinstance(c, (ev.Decided, ev.Measured))]

    def ready(self, name, worker_id, request_id=None, now=None):
        """Bring a model up, by a request if its id is given."""
        self(ev.RequestArrived(request_id, name) if request_id else ev.LoadRequested(name), now)
        return self(ev.WorkerReady(worker_id), now)

    def state(self, name):
        return self.scheduler.books.workers[name].state


def kinds(commands):
    return [type(c).__name__ for c in commands]


class TestServing:
    """A request gets a worker."""

    def test_the_first_request_starts_a_worker_and_gets_it(self):
        play = Play(model("a", load_timeout_s=60.0))
        assert play(ev.RequestArrived(1, "a"), 10.0) == [
            ev.StartWorker("a#1", "a", {"host": 1}, {}, 60.0)
        ]
        assert play(ev.WorkerReady("a#1"), 12.0) == [ev.Grant(1, "a#1", swap_s=0.0, load_s=2.0)]
        assert play(ev.RequestEnded(1), 13.0) == []

    def test_a_ready_worker_is_given_at_once(self):
        play = Play(model("a"))
        play.ready("a", "a#1")
        assert play(ev.RequestArrived(1, "a")) == [ev.Grant(1, "a#1", 0.0, 0.0)]

    def test_parallel_bounds_what_is_in_flight_and_order_is_kept(self):
        play = Play(model("a", parallel=2))
        play.ready("a", "a#1")
        granted = [play(ev.RequestArrived(n, "a")) for n in (1, 2, 3, 4)]
        assert [kinds(g) for g in granted] == [["Grant"], ["Grant"], [], []]
        assert [c.request_id for c in play(ev.RequestEnded(2))] == [3]

    def test_several_models_load_at_once_when_there_is_room(self):
        play = Play(model("a"), model("b"), host=2)
        assert kinds(play(ev.RequestArrived(1, "a"))) == ["StartWorker"]
        assert kinds(play(ev.RequestArrived(2, "b"))) == ["StartWorker"]

    def test_a_request_tried_again_keeps_its_place(self):
        play = Play(model("a", parallel=1))
        play.ready("a", "a#1", request_id=1)
        play(ev.RequestArrived(2, "a"), 5.0)
        play(ev.RequestArrived(3, "a", arrived_at=1.0), 6.0)
        assert [c.request_id for c in play(ev.RequestEnded(1))] == [3]

    def test_a_client_that_leaves_while_waiting_gets_nothing_and_the_load_goes_on(self):
        play = Play(model("a"))
        play(ev.RequestArrived(1, "a"))
        assert play(ev.RequestEnded(1)) == []
        assert play(ev.WorkerReady("a#1")) == []
        assert play.state("a") is WorkerState.READY

    def test_a_request_may_not_arrive_twice(self):
        play = Play(model("a"))
        play(ev.RequestArrived(1, "a"))
        with pytest.raises(BrokenBooks, match="arrived twice"):
            play(ev.RequestArrived(1, "a"))


class TestMakingRoom:
    """Somebody has to go."""

    def test_an_idle_worker_stops_and_only_then_the_other_starts(self):
        play = Play(model("a"), model("b"))
        play.ready("a", "a#1", now=0.0)
        assert play(ev.RequestArrived(1, "b"), 100.0) == [ev.StopWorker("a#1", 10.0)]
        assert play(ev.RequestArrived(2, "b"), 100.0) == []
        assert kinds(play(ev.WorkerExited("a#1"), 101.0)) == ["StartWorker"]
        grant = play(ev.WorkerReady("b#2"), 103.0)[0]
        assert grant == ev.Grant(1, "b#2", swap_s=1.0, load_s=2.0)

    def test_a_busy_worker_drains_and_takes_nothing_new(self):
        play = Play(model("a"), model("b"))
        play.ready("a", "a#1", request_id=1, now=0.0)
        assert play(ev.RequestArrived(2, "b"), 100.0) == []
        assert (play.state("a"), play.scheduler.next_deadline()) == (WorkerState.READY, 101.0)
        assert play(ev.TimePassed(), 101.0) == []
        assert play.state("a") is WorkerState.DRAINING
        assert play(ev.RequestArrived(3, "a"), 101.0) == []
        assert play(ev.RequestEnded(1), 102.0) == [ev.StopWorker("a#1", 10.0)]
        assert [c.model for c in play(ev.WorkerExited("a#1"), 103.0)] == ["b"]

    def test_a_draining_worker_serves_again_when_nobody_needs_its_room_any_more(self):
        play = Play(model("a"), model("b"))
        play.ready("a", "a#1", request_id=1, now=0.0)
        play(ev.RequestArrived(2, "b"), 100.0)
        play(ev.TimePassed(), 101.0)
        play(ev.RequestArrived(3, "a"), 101.5)
        assert play(ev.RequestEnded(2), 102.0) == [ev.Grant(3, "a#1", 0.0, 0.0)]

    def test_a_pinned_model_is_never_moved_out(self):
        play = Play(model("a", pin=True), model("b"))
        play.ready("a", "a#1", now=0.0)
        refusal = play(ev.RequestArrived(1, "b"), 100.0)[0]
        assert (refusal.kind, play.state("a")) == ("too_large", WorkerState.READY)

    def test_a_model_larger_than_the_budget_is_refused_with_figures(self):
        play = Play(model("a", size=3 * 2**30), host=2**30)
        refusal = play(ev.RequestArrived(1, "a"))[0]
        assert refusal.kind == "too_large"
        assert "3.00 GiB" in refusal.reason
        assert "1.00 GiB" in refusal.reason

    def test_max_loaded_is_room_like_any_other(self):
        specs = [model(name, groups=("",)) for name in "ab"]
        play = Play(*specs, host=10, **{"": 1})
        play.ready("a", "a#1", now=0.0)
        assert play(ev.RequestArrived(1, "b"), 100.0) == [ev.StopWorker("a#1", 10.0)]

    def test_a_later_small_model_does_not_take_the_room_that_a_large_one_waits_for(self):
        play = Play(model("a", size=2), model("large", size=3), model("small", size=1), host=3)
        play.ready("a", "a#1", request_id=1, now=0.0)
        assert play(ev.RequestArrived(2, "large"), 100.0) == []
        assert play(ev.RequestArrived(3, "small"), 101.0) == []
        play(ev.RequestEnded(1), 102.0)
        assert [c.model for c in play(ev.WorkerExited("a#1"), 103.0)] == ["large"]

    def test_no_more_victims_than_needed(self):
        play = Play(model("a"), model("b"), model("c", size=2), model("d", size=2), host=4)
        for name in "abc":
            play(ev.LoadRequested(name), 0.0)
        for n, name in enumerate("abc", 1):
            play(ev.WorkerReady(f"{name}#{n}"), 1.0)
        stopped = play(ev.RequestArrived(1, "d"), 100.0)
        assert [c.worker_id for c in stopped] == ["c#3"]

    def test_memory_of_other_programs_is_not_ours_to_give(self):
        play = Play(model("a", size=6), host=10)
        play(ev.DevicesRead({"host": ev.DeviceReading(total=10, free=4)}))
        assert play(ev.RequestArrived(1, "a")) == []
        read = ev.DevicesRead({"host": ev.DeviceReading(total=10, free=9)})
        assert kinds(play(read)) == ["StartWorker"]

    def test_the_best_variant_that_can_be_had_is_chosen(self):
        whole = Variant({"cuda:0": 8, "host": 1}, {"gpu_layers": 32})
        half = Variant({"cuda:0": 4, "host": 5}, {"gpu_layers": 16})
        spec = ModelSpec("a", "llamacpp", variants=(whole, half))
        scheduler = Scheduler(Registry({"a": spec}, {"host": 10, "cuda:0": 6}))
        start = scheduler.handle(ev.RequestArrived(1, "a"), 0.0)[-1]
        assert isinstance(start, ev.StartWorker)
        assert start.settings == {"gpu_layers": 16}


class TestTurns:
    """Who keeps a place, and for how long: loads take 1 s here, so a swap out and back costs 2 s."""

    def swapped(self):
        play = Play(model("a"), model("b"))
        play(ev.RequestArrived(1, "a"), 0.0)
        play(ev.RequestArrived(2, "b"), 0.5)
        play(ev.WorkerReady("a#1"), 1.0)
        return play

    def test_a_fresh_worker_keeps_its_place_for_the_quantum_while_it_answers(self):
        play = self.swapped()
        assert play.scheduler.next_deadline() == 3.0
        play(ev.TimePassed(), 2.9)
        assert play.state("a") is WorkerState.READY
        play(ev.TimePassed(), 3.0)
        assert play.state("a") is WorkerState.DRAINING

    def test_an_idle_worker_goes_after_a_short_hold(self):
        play = self.swapped()
        assert play(ev.RequestEnded(1), 1.5) == []
        due = play.scheduler.next_deadline()
        assert 1.5 < due < 1.6
        assert kinds(play(ev.TimePassed(), due)) == ["StopWorker"]

    def test_the_hold_covers_the_pauses_seen(self):
        play = self.swapped()
        play(ev.RequestEnded(1), 1.1)
        play(ev.RequestArrived(3, "a"), 1.12)
        play(ev.RequestEnded(3), 1.2)
        play(ev.RequestArrived(4, "a"), 1.225)
        play(ev.RequestEnded(4), 1.3)
        assert play.scheduler.next_deadline() >= 1.3 + 0.025

    def test_a_model_never_loaded_is_taken_to_load_like_the_one_that_is_there(self):
        play = Play(model("a", load_s=None), model("b", load_s=None))
        play(ev.RequestArrived(1, "a"), 0.0)
        play(ev.RequestArrived(2, "b"), 0.5)
        play(ev.WorkerReady("a#1"), 1.0)
        assert play.scheduler.next_deadline() == 3.0

    def test_max_wait_shortens_the_quantum(self):
        play = Play(model("a"), model("b", max_wait_s=1.0))
        play(ev.RequestArrived(1, "a"), 0.0)
        play(ev.RequestArrived(2, "b"), 0.5)
        play(ev.WorkerReady("a#1"), 1.0)
        assert play.scheduler.next_deadline() == 1.5


class TestEnds:
    """Deadlines, ttl, unload, shutdown."""

    def test_idle_past_its_ttl_a_worker_stops(self):
        play = Play(model("a", ttl_s=60.0))
        play.ready("a", "a#1", request_id=1, now=0.0)
        assert play.scheduler.next_deadline() == math.inf
        play(ev.RequestEnded(1), 10.0)
        assert play.scheduler.next_deadline() == 70.0
        assert play(ev.TimePassed(), 69.9) == []
        assert play(ev.TimePassed(), 70.0) == [ev.StopWorker("a#1", 10.0)]

    def test_ttl_zero_means_never(self):
        play = Play(model("a", ttl_s=0.0))
        play.ready("a", "a#1", now=0.0)
        assert play.scheduler.next_deadline() == math.inf

    def test_a_stay_that_a_client_chose_goes_before_the_ttl(self):
        play = Play(model("a", ttl_s=60.0))
        play.ready("a", "a#1", request_id=1, now=0.0)
        play(ev.StayChosen("a", math.inf), 1.0)
        assert play(ev.RequestEnded(1), 10.0) == []
        assert play.scheduler.next_deadline() == math.inf
        play(ev.StayChosen("a", 5.0), 12.0)
        assert play.scheduler.next_deadline() == 15.0
        assert play(ev.TimePassed(), 15.0) == [ev.StopWorker("a#1", 10.0)]

    def test_a_stay_of_nothing_ends_with_the_last_answer(self):
        play = Play(model("a", ttl_s=0.0, parallel=1))
        play.ready("a", "a#1", request_id=1, now=0.0)
        play(ev.RequestArrived(2, "a"), 1.0)
        assert play(ev.StayChosen("a", 0.0), 2.0) == []
        assert play(ev.RequestEnded(1), 3.0) == [ev.Grant(2, "a#1", 0.0, 0.0)]
        assert play(ev.RequestEnded(2), 4.0) == [ev.StopWorker("a#1", 10.0)]

    def test_a_stay_is_the_workers_and_ends_with_it(self):
        play = Play(model("a", ttl_s=60.0))
        play(ev.StayChosen("a", 0.0), 0.0)
        play.ready("a", "a#1", now=0.0)
        assert play.scheduler.next_deadline() == 60.0
        assert play(ev.StayChosen("a", 0.0), 5.0) == [ev.StopWorker("a#1", 10.0)]
        play(ev.WorkerExited("a#1"), 6.0)
        play.ready("a", "a#2", now=7.0)
        assert play.scheduler.next_deadline() == 67.0

    def test_a_request_that_waits_past_its_deadline_is_refused(self):
        play = Play(model("a", queue_timeout_s=5.0))
        play(ev.RequestArrived(1, "a"), 0.0)
        assert play.scheduler.next_deadline() == 5.0
        refusal = play(ev.TimePassed(), 5.0)[0]
        assert (refusal.kind, refusal.retry_after_s) == ("timeout", 5.0)
        assert "still loading" in refusal.reason

    def test_a_full_queue_refuses_at_once(self):
        play = Play(model("a", queue_limit=1))
        play(ev.RequestArrived(1, "a"))
        assert [c.kind for c in play(ev.RequestArrived(2, "a"))] == ["queue_full"]
        assert play(ev.RequestEnded(2)) == []

    def test_unload_refuses_who_waits_and_lets_answers_finish(self):
        play = Play(model("a", parallel=1))
        play.ready("a", "a#1", request_id=1)
        play(ev.RequestArrived(2, "a"))
        assert [c.kind for c in play(ev.UnloadRequested("a"))] == ["unloaded"]
        assert play(ev.RequestEnded(1)) == [ev.StopWorker("a#1", 10.0)]

    def test_unload_while_loading_stops_the_load(self):
        play = Play(model("a"))
        play(ev.LoadRequested("a"))
        assert play(ev.UnloadRequested("a")) == [ev.StopWorker("a#1", 10.0)]
        assert play(ev.WorkerReady("a#1")) == []
        assert play(ev.WorkerExited("a#1")) == []

    def test_a_request_that_comes_while_the_model_stops_loads_it_again(self):
        play = Play(model("a"))
        play.ready("a", "a#1")
        play(ev.UnloadRequested("a"))
        assert play(ev.RequestArrived(1, "a")) == []
        assert kinds(play(ev.WorkerExited("a#1"))) == ["StartWorker"]

    def test_shutdown_refuses_waits_and_stops(self):
        play = Play(model("a"), model("b"), host=2)
        play.ready("a", "a#1", request_id=1)
        play(ev.RequestArrived(2, "b"))
        assert kinds(play(ev.ShutdownRequested())) == ["Reject", "StopWorker"]
        assert [c.kind for c in play(ev.RequestArrived(3, "a"))] == ["shutting_down"]
        assert play(ev.RequestEnded(1)) == [ev.StopWorker("a#1", 10.0)]


class TestFailures:
    """Loads that fail and workers that die."""

    def test_a_failed_load_refuses_who_waits_and_backs_off(self):
        play = Play(model("a"))
        play(ev.RequestArrived(1, "a"), 0.0)
        refusal = play(ev.WorkerExited("a#1", BAD_FILE), 2.0)[0]
        assert (refusal.kind, refusal.cause, refusal.retry_after_s) == (
            "load_failed",
            "bad_file",
            1.0,
        )
        assert "it is truncated" in refusal.reason
        assert kinds(play(ev.RequestArrived(2, "a"), 2.5)) == ["Reject"]
        assert kinds(play(ev.RequestArrived(3, "a"), 3.0)) == ["StartWorker"]
        again = play(ev.WorkerExited("a#2", BAD_FILE), 4.0)[0]
        assert again.retry_after_s == 2.0

    def test_a_failed_load_leaves_the_others_alone(self):
        play = Play(model("a"), model("b"), host=2)
        play(ev.RequestArrived(1, "a"))
        play(ev.RequestArrived(2, "b"))
        play(ev.WorkerExited("a#1", BAD_FILE))
        assert kinds(play(ev.WorkerReady("b#2"))) == ["Grant"]

    def test_a_first_crash_may_be_tried_again_at_once_but_a_loop_may_not(self):
        play = Play(model("a"))
        play.ready("a", "a#1", request_id=1, now=0.0)
        assert play(ev.WorkerExited("a#1", None), 5.0) == []
        play(ev.RequestEnded(1), 5.0)
        assert kinds(play(ev.RequestArrived(2, "a"), 5.0)) == ["StartWorker"]
        play(ev.WorkerReady("a#2"), 6.0)
        play(ev.WorkerExited("a#2", None), 7.0)
        play(ev.RequestEnded(2), 7.0)
        assert kinds(play(ev.RequestArrived(3, "a"), 7.5)) == ["Reject"]
        assert kinds(play(ev.RequestArrived(4, "a"), 8.0)) == ["StartWorker"]

    def test_crashes_with_a_good_life_between_them_are_no_loop(self):
        play = Play(model("a"))
        for day in range(5):
            crashing, good = f"a#{2 * day + 1}", f"a#{2 * day + 2}"
            play.ready("a", crashing, request_id=2 * day + 1, now=day * 86400.0)
            assert play(ev.WorkerExited(crashing, None)) == []
            play(ev.RequestEnded(2 * day + 1))
            started = play(ev.RequestArrived(2 * day + 2, "a"))  # at once
            assert kinds(started) == ["StartWorker"]
            play(ev.WorkerReady(good))
            play(ev.RequestEnded(2 * day + 2))
            play(ev.UnloadRequested("a"))
            play(ev.WorkerExited(good, None))

    def test_a_model_that_never_loads_is_tried_every_minute_for_ever(self):
        play = Play(model("a"))
        for minute in range(1, 1100):
            play(ev.RequestArrived(minute, "a"), minute * 61.0)
            refusal = play(ev.WorkerExited(f"a#{minute}", BAD_FILE), minute * 61.0 + 0.5)[0]
        assert refusal.retry_after_s == 60.0

    def test_out_of_memory_on_load_is_tried_once_more_with_a_larger_figure(self):
        oom = ev.Failure("out_of_memory", "no memory")
        play = Play(model("a", size=100), host=200)
        play(ev.RequestArrived(1, "a"), 0.0)
        (start,) = play(ev.WorkerExited("a#1", oom), 1.0)
        assert start.reserved == {"host": 120}
        assert kinds(play(ev.WorkerExited("a#2", oom), 2.0)) == ["Reject"]

    def test_what_a_worker_measures_is_what_it_is_charged(self):
        play = Play(model("a", size=4), model("b", size=5), host=10)
        play.ready("a", "a#1", request_id=1)
        play(ev.WorkerMeasured("a#1", {"host": 7}))
        assert play.scheduler.books.ledger.charged("host") == 7
        play(ev.RequestEnded(1))
        play(ev.RequestArrived(2, "b"), 100.0)
        assert play.state("a") is WorkerState.STOPPING

    def test_a_measure_taken_before_anything_was_touched_only_raises_the_charge(self):
        play = Play(model("a", size=4), host=10)
        play(ev.LoadRequested("a"))
        play(ev.WorkerReady("a#1", {"host": 2}))
        assert play.scheduler.books.ledger.charged("host") == 4

    def test_an_illegal_move_raises_and_changes_nothing(self):
        play = Play(model("a"))
        play.ready("a", "a#1")
        worker = play.scheduler.books.workers["a"]
        with pytest.raises(IllegalMove, match="READY -> STOPPED"):
            worker.move(WorkerState.STOPPED)
        assert worker.state is WorkerState.READY


class TestWhoIsNext:
    """Priorities, and one key's share beside another's."""

    def test_a_batch_of_one_key_delays_another_key_by_one_answer(self):
        play = Play(model("a", parallel=2))
        play.ready("a", "a#1")
        for n in range(1, 21):
            play(ev.RequestArrived(n, "a", key="batch"))
        play(ev.RequestArrived(21, "a", key="person"))
        assert [c.request_id for c in play(ev.RequestEnded(1))] == [21]
        assert [c.request_id for c in play(ev.RequestEnded(21))] == [3]

    def test_within_a_key_it_is_first_come_first_served(self):
        play = Play(model("a", parallel=1))
        play.ready("a", "a#1", request_id=1)
        for n in (2, 3):
            play(ev.RequestArrived(n, "a", key="x"))
        assert [c.request_id for c in play(ev.RequestEnded(1))] == [2]

    def test_a_higher_priority_goes_first(self):
        play = Play(model("a", parallel=1))
        play.ready("a", "a#1", request_id=1)
        play(ev.RequestArrived(2, "a"))
        play(ev.RequestArrived(3, "a", priority=1))
        assert [c.request_id for c in play(ev.RequestEnded(1))] == [3]

    def test_a_model_of_higher_priority_gets_its_turn_first_but_not_for_ever(self):
        for late, first in ((10.0, "urgent"), (100.0, "patient")):
            play = Play(model("a"), model("patient"), model("urgent", priority=1))
            play.ready("a", "a#1", request_id=1, now=0.0)
            play(ev.RequestArrived(2, "patient"), 100.0)
            play(ev.RequestArrived(3, "urgent"), 100.0 + late)
            play(ev.RequestEnded(1), 201.0)
            assert [c.model for c in play(ev.WorkerExited("a#1"), 202.0)] == [first]

    def test_a_higher_priority_waits_for_no_quantum(self):
        play = Play(model("a"), model("urgent", priority=1))
        play.ready("a", "a#1", request_id=1, now=0.0)
        play(ev.RequestArrived(2, "urgent"), 100.0)
        assert play.state("a") is WorkerState.DRAINING

    def test_nor_does_a_key_of_higher_priority(self):
        for first, second, state in (
            (0, 1, WorkerState.DRAINING),
            (1, 1, WorkerState.READY),
            (1, 0, WorkerState.READY),
        ):
            play = Play(model("a"), model("b"))
            play.ready("a", "a#1", now=0.0)
            play(ev.RequestArrived(1, "a", priority=first), 100.0)
            play(ev.RequestArrived(2, "b", priority=second), 100.0)
            assert play.state("a") is state

    def test_what_the_lower_gives_up_the_higher_has(self):
        play = Play(model("urgent", priority=1), model("b"))
        play.ready("urgent", "urgent#1", request_id=1, now=0.0)
        play(ev.RequestArrived(2, "b"), 100.0)
        assert play.scheduler.next_deadline() == 102.0  # a swap out and back costs 1 s
        play(ev.TimePassed(), 102.0)
        assert play.state("urgent") is WorkerState.DRAINING

    def test_max_wait_ends_the_claim_of_a_higher_priority_too(self):
        play = Play(model("urgent", priority=1), model("b", max_wait_s=1.0))
        play.ready("urgent", "urgent#1", request_id=1, now=0.0)
        play(ev.RequestArrived(2, "b"), 100.0)
        assert play.scheduler.next_deadline() == 101.0

    def test_a_lower_priority_that_has_come_up_serves_a_round_before_it_goes(self):
        play = Play(model("a", parallel=2), model("urgent", priority=1))
        for n in (1, 2, 3):
            play(ev.RequestArrived(n, "a"), 0.0)
        play(ev.RequestArrived(4, "urgent"), 0.5)
        granted = play(ev.WorkerReady("a#1"), 1.0)
        assert [c.request_id for c in granted] == [1, 2]
        assert play.state("a") is WorkerState.DRAINING

    def test_chat_moves_no_embedding_model_out(self):
        play = Play(model("e", role="embedding"), model("a"), model("f", role="embedding"))
        play.ready("e", "e#1", now=0.0)
        assert [c.kind for c in play(ev.RequestArrived(1, "a"), 100.0)] == ["too_large"]
        assert play(ev.RequestArrived(2, "f"), 100.0) == [ev.StopWorker("e#1", 10.0)]


class TestCores:
    """CPU workers that are busy together share the cores."""

    def play(self):
        specs = [model(name, shares_cores=True) for name in "ab"]
        play = Play(*specs, host=2)
        play.scheduler.books.registry = replace(play.scheduler.books.registry, cores=4)
        return play

    def test_alone_a_worker_has_all_and_beside_another_its_half(self):
        play = self.play()
        assert play(ev.RequestArrived(1, "a"), 0.0)[0].settings == {"threads": 4}
        play(ev.WorkerReady("a#1"), 1.0)
        (start, fewer) = play(ev.RequestArrived(2, "b"), 2.0)
        assert start.settings == {"threads": 2}
        assert fewer == ev.SetThreads("a#1", 2)
        play(ev.WorkerReady("b#2"), 3.0)
        play(ev.RequestEnded(1), 4.0)
        assert play.scheduler.next_deadline() == 6.0
        assert play(ev.TimePassed(), 6.0) == [ev.SetThreads("b#2", 4)]

    def test_a_short_pause_changes_nothing(self):
        play = self.play()
        play.ready("a", "a#1", request_id=1, now=0.0)
        play.ready("b", "b#2", request_id=2, now=0.0)
        play(ev.RequestEnded(1), 5.0)
        assert kinds(play(ev.RequestArrived(3, "a"), 5.5)) == ["Grant"]


class TestReload:
    """The configuration is read anew."""

    def test_unchanged_models_go_on_changed_ones_start_anew(self):
        play = Play(model("a"), model("b"), host=2)
        play.ready("a", "a#1", request_id=1)
        play.ready("b", "b#2", request_id=2)
        new = registry(model("a"), model("b", parallel=3), host=2)
        assert play(ev.RegistryReplaced(new, frozenset("b"))) == []
        assert (play.state("a"), play.state("b")) == (WorkerState.READY, WorkerState.DRAINING)
        play(ev.RequestArrived(3, "b"))
        assert play(ev.RequestEnded(2)) == [ev.StopWorker("b#2", 10.0)]
        assert kinds(play(ev.WorkerExited("b#2"))) == ["StartWorker"]

    def test_removed_models_drain_and_who_waits_for_them_is_told(self):
        play = Play(model("a", parallel=1), model("b"))
        play.ready("a", "a#1", request_id=1)
        play(ev.RequestArrived(2, "a"))
        (refusal,) = play(ev.RegistryReplaced(registry(model("b"))))
        assert (refusal.request_id, refusal.kind) == (2, "unloaded")
        play(ev.RequestEnded(1))
        play(ev.WorkerExited("a#1"))
        assert "a" not in play.scheduler.books.demand

    def test_a_smaller_budget_moves_nobody_out_by_itself(self):
        play = Play(model("a"), model("b"), host=2)
        play.ready("a", "a#1")
        play.ready("b", "b#2")
        play(ev.RegistryReplaced(registry(model("a"), model("b"), host=1)))
        assert play.state("a") is play.state("b") is WorkerState.READY

    def test_a_changed_model_that_loads_is_ended_and_who_waits_gets_the_new_one(self):
        play = Play(model("a"))
        play(ev.RequestArrived(1, "a"), 0.0)
        new = registry(model("a", parallel=3))
        assert play(ev.RegistryReplaced(new, frozenset("a")), 0.5) == [ev.StopWorker("a#1", 10.0)]
        assert play(ev.WorkerReady("a#1"), 0.6) == []  # it came up while it was being stopped
        assert [c.worker_id for c in play(ev.WorkerExited("a#1"), 0.7)] == ["a#2"]
        assert [c.request_id for c in play(ev.WorkerReady("a#2"), 1.7)] == [1]

    def test_a_changed_model_that_drains_for_another_still_makes_room_for_it(self):
        play = Play(model("a"), model("b"))
        play.ready("a", "a#1", request_id=1, now=0.0)
        play(ev.RequestArrived(2, "b"), 100.0)
        play(ev.TimePassed(), 101.0)
        assert play.state("a") is WorkerState.DRAINING
        new = registry(model("a", parallel=3), model("b"))
        assert play(ev.RegistryReplaced(new, frozenset("a")), 102.0) == []
        play(ev.RequestArrived(3, "a"), 102.5)
        assert play(ev.RequestEnded(1), 103.0) == [ev.StopWorker("a#1", 10.0)]
        assert [c.model for c in play(ev.WorkerExited("a#1"), 104.0)] == ["b"]

    def test_a_model_that_is_removed_and_back_before_its_worker_is_gone(self):
        play = Play(model("a"), model("b"), host=2)
        play.ready("a", "a#1", request_id=1)
        play(ev.RegistryReplaced(registry(model("b"), host=2)))
        play(ev.RegistryReplaced(registry(model("a"), model("b"), host=2), frozenset("a")))
        play(ev.RequestArrived(2, "a"))
        assert play(ev.RequestEnded(1)) == [ev.StopWorker("a#1", 10.0)]
        assert kinds(play(ev.WorkerExited("a#1"))) == ["StartWorker"]


class TestRaces:
    """Two things at the same moment."""

    def test_a_request_at_the_moment_its_ttl_ends_is_served(self):
        play = Play(model("a", ttl_s=60.0))
        play.ready("a", "a#1", now=0.0)
        assert kinds(play(ev.RequestArrived(1, "a"), 60.0)) == ["Grant"]
        assert play.scheduler.next_deadline() == math.inf

    def test_a_preload_that_fails_neither_repeats_nor_keeps_others_out(self):
        play = Play(model("a"), model("b"))
        play(ev.LoadRequested("a"), 0.0)
        play(ev.RequestArrived(1, "b"), 0.5)
        (start,) = play(ev.WorkerExited("a#1", BAD_FILE), 1.0)
        assert start.model == "b"
        assert [c.request_id for c in play(ev.WorkerReady("b#2"), 2.0)] == [1]
        play(ev.RequestEnded(1), 3.0)
        assert play(ev.TimePassed(), 500.0) == []
        assert play.scheduler.next_deadline() == math.inf

    def test_a_model_in_back_off_claims_no_room(self):
        play = Play(model("a"), model("b"))
        play(ev.RequestArrived(1, "a"), 0.0)
        play(ev.WorkerExited("a#1", BAD_FILE), 1.0)
        assert [c.kind for c in play(ev.RequestArrived(2, "a"), 1.1)] == ["load_failed"]
        assert kinds(play(ev.RequestArrived(3, "b"), 1.2)) == ["StartWorker"]

    def test_the_last_to_wait_leaves_as_room_comes_free(self):
        play = Play(model("a"), model("b"))
        play.ready("a", "a#1", now=0.0)
        play(ev.RequestArrived(1, "b"), 100.0)
        assert play(ev.RequestEnded(1), 100.5) == []
        assert play(ev.WorkerExited("a#1"), 101.0) == []
        assert kinds(play(ev.RequestArrived(2, "a"), 102.0)) == ["StartWorker"]

    def test_a_worker_that_is_gone_is_told_of_no_more(self):
        play = Play(model("a"))
        play.ready("a", "a#1", request_id=1)
        play(ev.WorkerExited("a#1", BAD_FILE))
        late = (ev.WorkerReady("a#1"), ev.WorkerMeasured("a#1", {"host": 9}), ev.WorkerSlept("a#1"))
        for event in (
            *late,
            ev.WorkerWoke("a#1"),
            ev.SleepFailed("a#1", "x"),
            ev.WorkerExited("a#1"),
        ):
            assert play(event) == []
        assert play(ev.RequestEnded(1)) == []
        assert play.scheduler.books.ledger.charged("host") == 0
