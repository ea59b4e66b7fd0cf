"""Memory that is lent, and memory that other programs take: who goes, who stays, what comes back."""

from __future__ import annotations

import math

from swapper.core import events as ev
from swapper.core.registry import Registry
from swapper.core.worker import WorkerState
from tests.core.test_transcripts import Play, kinds
from tests.core.world import model


def reading(total, free, ours=0):
    return ev.DevicesRead({"host": ev.DeviceReading(total, free, ours)})


def room(play):
    return play.scheduler.books.ledger.room("host")


class TestLoans:
    def test_an_idle_model_goes_at_once(self):
        play = Play(model("a", size=6), host=10)
        play.ready("a", "a#1")
        assert play(ev.MemoryLent("loan", {"host": 8}), 5.0) == [ev.StopWorker("a#1", 10.0)]
        assert room(play) < 0
        play(ev.WorkerExited("a#1"), 6.0)
        assert room(play) == 2

    def test_one_that_answers_finishes_first(self):
        play = Play(model("a", size=6), host=10)
        play.ready("a", "a#1", request_id=1)
        assert play(ev.MemoryLent("loan", {"host": 8})) == []
        assert play.state("a") is WorkerState.DRAINING
        assert play(ev.RequestEnded(1)) == [ev.StopWorker("a#1", 10.0)]

    def test_only_as_many_go_as_are_needed_and_those_first_that_are_idle(self):
        play = Play(model("a", size=4), model("b", size=4), host=10)
        play.ready("a", "a#1", request_id=1)
        play.ready("b", "b#2")
        assert play(ev.MemoryLent("loan", {"host": 5})) == [ev.StopWorker("b#2", 10.0)]
        assert play.state("a") is WorkerState.READY

    def test_a_loan_that_fits_moves_nobody(self):
        play = Play(model("a", size=4), host=10)
        play.ready("a", "a#1")
        assert play(ev.MemoryLent("loan", {"host": 6})) == []

    def test_a_pinned_model_stays(self):
        play = Play(model("a", size=6, pin=True), host=10)
        play.ready("a", "a#1")
        assert play(ev.MemoryLent("loan", {"host": 8})) == []
        assert play.state("a") is WorkerState.READY

    def test_who_needs_lent_room_waits_until_it_is_given_back(self):
        play = Play(model("a", size=6), host=10)
        play(ev.MemoryLent("loan", {"host": 8}))
        assert play(ev.RequestArrived(1, "a"), 1.0) == []
        assert kinds(play(ev.MemoryTakenBack("loan"), 2.0)) == ["StartWorker"]

    def test_a_loan_ends_by_itself(self):
        play = Play(model("a", size=6), host=10)
        play(ev.MemoryLent("loan", {"host": 8}, until=60.0))
        play(ev.RequestArrived(1, "a"), 1.0)
        assert play.scheduler.next_deadline() == 60.0
        assert kinds(play(ev.TimePassed(), 60.0)) == ["StartWorker"]
        assert play(ev.MemoryTakenBack("loan"), 61.0) == []

    def test_what_the_borrower_takes_counts_once(self):
        play = Play(model("a", size=2), host=10)
        play(reading(16, free=12))
        play(ev.MemoryLent("loan", {"host": 6}))
        assert room(play) == 4
        play(reading(16, free=6))  # it has taken them
        assert room(play) == 4
        play(reading(16, free=3))  # it, or another, has taken more
        assert room(play) == 3

    def test_others_that_were_there_before_do_not_pay_for_a_loan(self):
        play = Play(model("a", size=2), host=10)
        play(reading(16, free=8))
        play(ev.MemoryLent("loan", {"host": 6}))
        assert room(play) == 2

    def test_loans_add_up(self):
        play = Play(model("a"), host=10)
        play(ev.MemoryLent("one", {"host": 3}))
        play(ev.MemoryLent("two", {"host": 4}))
        assert room(play) == 3
        play(ev.MemoryTakenBack("one"))
        assert room(play) == 6
        play(ev.MemoryTakenBack("two"))
        assert room(play) == 10

    def test_a_loan_outlives_a_reload(self):
        play = Play(model("a", size=6), host=10)
        play(ev.MemoryLent("loan", {"host": 8}))
        registry = play.scheduler.books.registry
        play(ev.RegistryReplaced(Registry(registry.models, {"host": 12})))
        assert room(play) <= 4


class TestOtherPrograms:
    def test_an_idle_model_yields(self):
        play = Play(model("a", size=6), host=10)
        play.ready("a", "a#1")
        assert play(reading(16, free=10, ours=6)) == []
        assert play(reading(16, free=0, ours=5), 5.0) == [ev.StopWorker("a#1", 10.0)]

    def test_one_that_answers_does_not(self):
        play = Play(model("a", size=6), host=10)
        play.ready("a", "a#1", request_id=1)
        assert play(reading(16, free=0, ours=5)) == []
        assert play.state("a") is WorkerState.READY
        assert kinds(play(ev.RequestEnded(1))) == ["StopWorker"]

    def test_a_little_is_worth_no_model(self):
        play = Play(model("a", size=600), host=1000)
        play.ready("a", "a#1")
        assert play(reading(1600, free=0, ours=590)) == []

    def test_the_last_bytes_do_not_matter_where_all_cannot_be_had(self):
        play = Play(model("a", size=2), model("b", size=6, pin=True), host=10)
        play.ready("a", "a#1")
        play.ready("b", "b#2")
        assert kinds(play(reading(16, free=0, ours=2))) == ["StopWorker"]


def test_nothing_lent_is_no_deadline():
    assert Play(model("a")).scheduler.next_deadline() == math.inf
