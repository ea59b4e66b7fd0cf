"""Which layout is chosen: best quality first, then what fits now and tightest, then what is cheapest."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from swapper.core import events as ev
from swapper.core.fitting import Layout, choose, fits, left_over
from swapper.core.ledger import Ledger
from swapper.core.registry import ModelSpec, Registry, Variant
from swapper.core.scheduler import Scheduler
from tests.core.test_transcripts import Play, kinds

GPUS = ("cuda:0", "cuda:1", "cuda:2")

sizes = st.integers(0, 12)
rooms = st.fixed_dictionaries(dict.fromkeys(("host", *GPUS), sizes))


@st.composite
def layouts(draw):
    gpus = draw(st.sets(st.sampled_from(GPUS), max_size=3))
    needs = {name: draw(st.integers(1, 10)) for name in sorted(gpus)}
    quality = (draw(st.integers(1, 3)), -len(gpus)) if gpus else (0, 0)
    return Layout(Variant(needs, quality=quality), {"host": draw(st.integers(0, 3)), **needs})


@given(st.lists(layouts(), max_size=6), rooms, rooms, st.randoms())
def test_every_rule_of_the_choice(some, room, movable, random):
    most = {name: room[name] + movable[name] for name in room}
    prices = {id(layout): random.random() for layout in some}
    by_needs = {id(layout.needs): prices[id(layout)] for layout in some}
    chosen = choose(some, most.get, room.get, lambda needs: (by_needs[id(needs)],))
    possible = [layout for layout in some if fits(layout.needs, most.get)]
    assert (chosen is None) == (not possible)
    if chosen is None:
        return
    assert chosen in possible
    assert chosen.variant.quality == max(layout.variant.quality for layout in possible)
    equals = [layout for layout in possible if layout.variant.quality == chosen.variant.quality]
    fitting = [layout for layout in equals if fits(layout.needs, room.get)]
    if fitting:
        least = min(left_over(layout.needs, room.get) for layout in fitting)
        assert fits(chosen.needs, room.get)
        assert left_over(chosen.needs, room.get) == least
    else:
        assert prices[id(chosen)] == min(prices[id(layout)] for layout in equals)


@given(st.integers(1, 12), rooms)
def test_several_gpus_only_where_one_does_not_do(size, room):
    single = [Layout(Variant(quality=(9, -1)), {gpu: size}) for gpu in GPUS]
    half = -(-size // 2)
    pair = Layout(Variant(quality=(9, -2)), {GPUS[0]: half, GPUS[1]: half})
    chosen = choose([pair, *single], room.get, room.get, lambda _: (0,))
    if any(room[gpu] >= size for gpu in GPUS):
        assert chosen in single
    else:
        assert chosen in (pair, None)


class OnGpus(Play):
    """Two GPUs of 10 and 6."""

    def __init__(self, *specs, **budgets):
        budgets = budgets or {"cuda:0": 10, "cuda:1": 6}
        models = {spec.name: spec for spec in specs}
        self.scheduler = Scheduler(Registry(models, {"host": 100, **budgets}))
        self.now = 0.0

    def read(self, began_at=math.inf, **left):
        """A reading of GPUs of 10 each, in which others leave so much."""
        readings = {
            name.replace("_", ":"): ev.DeviceReading(10, free) for name, free in left.items()
        }
        return self(ev.DevicesRead(readings, began_at))


def anywhere(name, size, **changes):
    variants = tuple(
        Variant({gpu: size}, {"devices": [gpu]}, quality=(1, -1)) for gpu in ("cuda:0", "cuda:1")
    )
    return ModelSpec(name, "echo", variants, **{"load_s": 1.0, "ttl_s": 0.0, **changes})


def on_first(name, size, **changes):
    return ModelSpec(name, "echo", (Variant({"cuda:0": size}),), load_s=1.0, ttl_s=0.0, **changes)


def where(commands):
    return [c.settings["devices"] for c in commands if isinstance(c, ev.StartWorker)]


def test_small_models_leave_the_large_gpu_to_large_ones():
    play = OnGpus(anywhere("small", 5), anywhere("large", 9), anywhere("tiny", 1))
    assert where(play(ev.LoadRequested("small"))) == [["cuda:1"]]
    assert where(play(ev.LoadRequested("large"))) == [["cuda:0"]]
    assert where(play(ev.LoadRequested("tiny"))) == [["cuda:0"]]


def test_another_gpu_that_is_free_is_better_than_an_eviction():
    play = OnGpus(anywhere("a", 6), anywhere("b", 6))
    play.ready("a", "a#1", now=0.0)
    play.now = 100.0
    assert where(play(ev.LoadRequested("b"))) == [["cuda:0"]]


def test_where_nothing_is_free_the_cheapest_goes():
    play = OnGpus(anywhere("dear", 6), anywhere("cheap", 9), anywhere("new", 6))
    play.ready("dear", "dear#1", now=0.0)
    play.ready("cheap", "cheap#2", now=0.0)
    for n in range(5):
        play(ev.RequestArrived(n, "dear"), 1.0)
        play(ev.RequestEnded(n), 1.0)
    assert play(ev.LoadRequested("new"), 100.0) == [ev.StopWorker("cheap#2", 10.0)]
    assert where(play(ev.WorkerExited("cheap#2"))) == [["cuda:0"]]


def test_all_layers_on_a_gpu_are_worth_an_eviction():
    whole = Variant({"cuda:0": 8}, {"gpu_layers": 33, "devices": ["cuda:0"]}, (33, -1))
    part = Variant({"cuda:1": 4}, {"gpu_layers": 16, "devices": ["cuda:1"]}, (16, -1))
    spec = ModelSpec("best", "llamacpp", (whole, part))
    play = OnGpus(on_first("a", 8), spec)
    play.ready("a", "a#1", now=0.0)
    assert play(ev.LoadRequested("best"), 100.0) == [ev.StopWorker("a#1", 10.0)]
    pinned = OnGpus(on_first("a", 8, pin=True), spec)
    pinned.ready("a", "a#1", now=0.0)
    assert where(pinned(ev.LoadRequested("best"), 100.0)) == [["cuda:1"]]


def test_whoever_drains_for_one_that_found_room_elsewhere_serves_again():
    play = OnGpus(on_first("a", 10), anywhere("b", 6, pin=True), anywhere("c", 6))
    play.ready("b", "b#1", now=0.0)
    play.ready("a", "a#2", request_id=1, now=0.0)
    play(ev.RequestArrived(2, "c"), 50.0)
    play(ev.TimePassed(), 100.0)
    assert play.state("a").name == "DRAINING"
    assert where(play(ev.WorkerExited("b#1"), 101.0)) == [["cuda:1"]]
    assert play(ev.RequestEnded(1)) == []
    assert play.state("a").name == "READY"


# ---------------------------------------------------------------- memory that returns late


class TestReturning:
    """What a worker held of a GPU is given again when the device shows it free."""

    def gone(self, *more):
        """`a` of 8 has just gone from a GPU of 10, and `b` of 8 waits."""
        play = OnGpus(on_first("a", 8), on_first("b", 8), *more)
        play.read(cuda_0=10)
        play.ready("a", "a#1", now=0.0)
        play(ev.RequestArrived(1, "b"), 100.0)
        assert play(ev.WorkerExited("a#1"), 101.0) == []
        return play

    def test_a_reading_that_shows_it_free_ends_the_wait(self):
        play = self.gone()
        assert kinds(play.read(cuda_0=10)) == ["StartWorker"]

    def test_as_long_as_it_is_not_free_nobody_gets_it(self):
        play = self.gone()
        assert play.read(cuda_0=2) == []
        assert play.read(cuda_0=7) == []
        assert kinds(play.read(cuda_0=9)) == ["StartWorker"]

    def test_a_reading_begun_before_the_end_says_nothing(self):
        play = self.gone()
        assert play.read(began_at=100.9, cuda_0=10) == []
        assert kinds(play.read(cuda_0=10)) == ["StartWorker"]

    def test_unread_it_is_given_when_the_wait_is_over(self):
        play = self.gone()
        assert play.scheduler.next_deadline() == 106.0
        assert play(ev.TimePassed(), 105.9) == []
        assert kinds(play(ev.TimePassed(), 106.0)) == ["StartWorker"]

    def test_what_does_not_come_back_is_another_programs(self):
        play = self.gone()
        play.read(cuda_0=2)
        assert play(ev.TimePassed(), 106.0) == []
        assert play.scheduler.next_deadline() > 600
        assert kinds(play.read(cuda_0=8)) == ["StartWorker"]

    def test_nobody_else_is_moved_out_meanwhile(self):
        play = OnGpus(on_first("a", 7), on_first("b", 6), on_first("c", 2))
        play.read(cuda_0=10)
        play.ready("c", "c#1", now=0.0)
        play.ready("a", "a#2", now=0.0)
        play(ev.RequestArrived(1, "b"), 100.0)
        play(ev.WorkerExited("a#2"), 101.0)
        assert play.read(cuda_0=7) == []
        assert play.state("c").name == "READY"
        assert kinds(play(ev.TimePassed(), 106.0)) == ["StopWorker"]  # it is short of memory now

    def test_what_is_free_beside_it_may_be_given(self):
        play = self.gone(on_first("small", 2))
        play(ev.RequestEnded(1))
        assert kinds(play(ev.LoadRequested("small"))) == ["StartWorker"]

    def test_memory_of_the_host_is_free_at_once(self):
        ledger = Ledger({"host": 10, "group:": 1})
        ledger.observe(ev.DevicesRead({"host": ev.DeviceReading(10, 10)}))
        ledger.reserve("a#1", {"host": 10, "group:": 1})
        ledger.release("a#1", now=0.0)
        assert (ledger.room("host"), ledger.room("group:")) == (10, 1)
        assert ledger.returning("host") == 0


def test_out_of_memory_falls_back_to_fewer_layers_where_the_larger_figure_is_too_large():
    whole = Variant({"cuda:0": 95}, {"gpu_layers": 33, "devices": ["cuda:0"]}, (33, -1))
    part = Variant({"cuda:0": 50}, {"gpu_layers": 16, "devices": ["cuda:0"]}, (16, -1))
    play = OnGpus(ModelSpec("a", "llamacpp", (whole, part)), **{"cuda:0": 100})
    play(ev.RequestArrived(1, "a"))
    again = play(ev.WorkerExited("a#1", ev.Failure("out_of_memory", "no memory.")))
    assert [c.settings["gpu_layers"] for c in again] == [16]


def test_out_of_memory_twice_is_an_error_that_names_what_was_set_aside():
    play = OnGpus(on_first("a", 9 << 20), **{"cuda:0": 10 << 20})
    play(ev.RequestArrived(1, "a"))
    failure = ev.Failure("out_of_memory", "no memory.")
    (again,) = play(ev.WorkerExited("a#1", failure))
    assert again.reserved == {"cuda:0": 10 << 20}
    (refusal,) = play(ev.WorkerExited("a#2", failure))
    assert refusal.cause == "out_of_memory"
    assert refusal.reason.endswith("no memory (set aside for it: cuda:0 10 MiB)")
