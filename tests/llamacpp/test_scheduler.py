"""The scheduler over a memory that really holds tokens, so that every reuse can be checked."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from backends.llamacpp.batch import Chunk
from backends.llamacpp.scheduler import MIN_SHARED, Scheduler
from backends.llamacpp.sequence import Sequence, token_array


class FakeMemory:
    """Slots hold the tokens that were computed for them, and whose they are."""

    def __init__(self) -> None:
        self.slots: dict[int, array] = {}
        self.owner: dict[int, str] = {}
        self.copied = 0
        self.breaks = False  # nothing can be restored

    def copy(self, source: int, target: int, length: int) -> bool:
        assert not self.slots.get(target)
        self.slots[target] = self.slots[source][:length]
        self.owner[target] = self.owner[source]
        self.copied += length
        return True

    def remove(self, slot: int) -> None:
        self.slots.pop(slot, None)

    def save(self, slot: int) -> tuple[array, str]:
        return self.slots[slot][:], self.owner[slot]

    def restore(self, saved: tuple[array, str], slot: int, length: int) -> bool:
        assert not self.slots.get(slot)
        tokens, owner = saved
        self.slots[slot] = tokens[:length]
        self.owner[slot] = owner
        return not self.breaks

    def run(self, chunks: list[Chunk]) -> int:
        computed = 0
        for chunk in chunks:
            slot = chunk.sequence.slot
            held = self.slots.setdefault(slot, token_array())
            if held:
                assert self.owner[slot] == chunk.sequence.scope, "cells crossed a scope"
            self.owner[slot] = chunk.sequence.scope
            assert held == chunk.sequence.tokens[: chunk.start], "positions are not contiguous"
            held.extend(chunk.sequence.tokens[chunk.start : chunk.start + chunk.length])
            computed += chunk.length
        return computed


class World:
    def __init__(self, pool: int = 256, max_running: int = 4, **more) -> None:
        self.memory = FakeMemory()
        options = {"max_slots": 32, "budget": 32, "max_outputs": 16} | more
        self.scheduler = Scheduler(self.memory, pool=pool, max_running=max_running, **options)
        self.answers: dict[int, list[int]] = {}
        self.serial = 0
        self.computed = 0

    def add(self, tokens, max_tokens: int = 4, scope: str = "") -> Sequence:
        sequence = Sequence(self.serial, token_array(tokens), max_tokens, scope)
        self.serial += 1
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> list[Chunk]:
        chunks = self.scheduler.schedule()
        assert sum(c.length for c in chunks) <= self.scheduler.budget
        assert (
            self.scheduler.cells.used + sum(c.length for c in chunks) <= self.scheduler.cells.size
        )
        self.computed += self.memory.run(chunks)
        self.scheduler.advance(chunks)
        for chunk in chunks:
            if chunk.ends_prompt:
                self.emit(chunk.sequence)
        self.scheduler.check_integrity()
        return chunks

    def emit(self, sequence: Sequence) -> None:
        """The next token depends on all before it, so wrong reuse shows."""
        sequence.tokens.append(sum(sequence.tokens) % 5)
        if sequence.num_answer >= sequence.max_tokens:
            self.answers[sequence.serial] = list(sequence.tokens[sequence.num_prompt :])
            self.scheduler.finish(sequence)

    def run(self, limit: int = 5000) -> None:
        for _ in range(limit):
            if not self.scheduler.has_work:
                return
            assert self.step(), "work is left and nothing runs"
        raise AssertionError("not everything finished")


def expected(tokens: list[int], count: int) -> list[int]:
    tokens = list(tokens)
    start = len(tokens)
    for _ in range(count):
        tokens.append(sum(tokens) % 5)
    return tokens[start:]


PROMPT = st.lists(st.integers(0, 1), min_size=1, max_size=120)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), PROMPT, st.integers(1, 60), st.sampled_from(["", "a"])),
        st.tuples(st.just("step"), st.integers(1, 10)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("relieve")),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(
    EVENTS,
    st.sampled_from([180, 256, 600]),
    st.sampled_from([1, 3, 8]),
    st.integers(9, 64),
    st.sampled_from([None, 50, 200]),
)
def test_whatever_comes_all_finish_with_the_right_answers(
    events, pool, max_running, budget, keep
) -> None:
    world = World(pool, max_running, budget=budget, max_slots=max_running + 4, keep=keep)
    prompts: dict[int, tuple[list[int], int]] = {}
    sequences: dict[int, Sequence] = {}
    cancelled: set[int] = set()
    for event in events:
        match event:
            case ("add", prompt, count, scope):
                sequence = world.add(prompt, count, scope)
                prompts[sequence.serial] = (prompt, count)
                sequences[sequence.serial] = sequence
            case ("step", count):
                for _ in range(count):
                    world.step()
            case ("cancel", serial) if serial in sequences and serial not in world.answers:
                world.scheduler.finish(sequences[serial])
                cancelled.add(serial)
            case ("relieve",):
                world.scheduler.relieve()
    world.run()
    assert set(world.answers) == set(prompts) - cancelled
    for serial, answer in world.answers.items():
        assert answer == expected(*prompts[serial])
    world.scheduler.drop_cache()
    assert world.scheduler.cells.used == 0
    assert not any(world.memory.slots.values())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(PROMPT, st.sampled_from(["", "a"])), min_size=1, max_size=20),
    st.sampled_from([None, 300]),
)
def test_models_whose_state_cannot_be_cut(requests, keep) -> None:
    world = World(600, 3, can_cut=False, max_slots=6, keep=keep)
    for prompt, scope in requests:
        world.add(prompt, 20, scope)
    world.run()
    for serial, (prompt, _) in enumerate(requests):
        assert world.answers[serial] == expected(prompt, 20)


def test_eight_at_once_compute_their_common_beginning_once() -> None:
    common = [n % 7 for n in range(700)]
    world = World(4096, 8, budget=128)
    for n in range(8):
        world.add([*common, 8 + n, n, n, n])
    world.run()
    own = 8 * (4 + 3)  # each its tail, and three of its four answer tokens
    assert world.computed == 700 + own


def test_nobody_waits_for_another_scope() -> None:
    world = World(4096, 8, budget=64)
    world.add(range(100), scope="a")
    world.add(range(100), scope="b")
    world.run()
    assert world.computed == 2 * (100 + 3)
    assert world.memory.copied == 2 * 103  # keeping them at the end, nothing else


def test_a_finished_conversation_is_taken_up_again() -> None:
    world = World(1024, 2, budget=256)
    world.add(range(100))
    world.run()
    answer = world.answers[0]
    before = world.computed
    follow_up = world.add([*range(100), *answer, 77, 78])
    world.run()
    assert follow_up.num_cached == 103
    assert world.computed - before == 3 + 3


def test_the_last_token_is_always_run_anew() -> None:
    world = World(1024, 2)
    world.add(range(40), 1)
    world.run()
    again = world.add(range(40), 1)
    world.run()
    assert again.num_cached == 39


def test_short_of_cells_cache_goes_first_then_newcomers_wait_then_the_youngest_is_preempted() -> (
    None
):
    world = World(220, 4, budget=64)
    world.add(range(60))
    world.run()
    assert world.scheduler.cache
    first, second = world.add(range(100, 180), 60), world.add(range(200, 270), 60)
    third = world.add(range(300, 380), 4)
    while not (first.is_decoding and second.is_decoding):
        world.step()
    assert not third.is_running
    world.run()
    assert world.scheduler.num_preempted == 1
    assert second.num_cached == 0
    assert {0, 1, 2, 3} == set(world.answers)


def test_a_request_as_large_as_the_pool_runs_alone() -> None:
    world = World(256, 4, budget=64)
    world.add(range(40), 30)
    large = world.add(range(1000, 1200), 56)
    world.run()
    assert len(world.answers[large.serial]) == 56


def test_short_sequences_are_not_kept() -> None:
    world = World(256, 4)
    world.add(range(MIN_SHARED - 4), 4)
    world.run()
    assert not world.scheduler.cache


def test_what_is_kept_outside_takes_no_cells_and_is_brought_back() -> None:
    world = World(4096, 1, budget=256, keep=4096)
    world.add(range(100))
    world.run()
    assert world.scheduler.cells.used == 0
    again = world.add([*range(60), 7])
    world.run()
    assert again.num_cached == 60


def test_no_more_is_kept_outside_than_there_is_room_for() -> None:
    world = World(4096, 1, budget=256, keep=250)
    for n in range(8):
        world.add(range(n * 1000, n * 1000 + 100))
    world.run()
    assert world.scheduler.cache.num_tokens == 206
    last = world.add(range(7000, 7100))
    world.run()
    assert last.num_cached == 99


def test_one_large_conversation_is_kept_whatever_the_room() -> None:
    world = World(4096, 1, budget=256, keep=100)
    world.add(range(500))
    world.run()
    again = world.add(range(500))
    world.run()
    assert again.num_cached == 499


def test_what_cannot_be_brought_back_is_computed_again() -> None:
    world = World(4096, 1, budget=256, keep=4096)
    world.add(range(100))
    world.run()
    world.memory.breaks = True
    again = world.add(range(100))
    world.run()
    assert again.num_cached == 0
    assert world.answers[1] == world.answers[0]


def test_without_cells_for_all_of_it_nothing_is_brought_back() -> None:
    world = World(512, 2, budget=256, keep=512)
    world.add(range(300))
    world.run()
    world.add(range(1000, 1300), 60)
    world.step()
    again = world.add(range(100), 4)
    world.run()
    assert again.num_cached == 0
    assert world.scheduler.num_preempted == 0


def test_cells_that_run_short_cost_nothing_that_is_kept_outside() -> None:
    world = World(220, 4, budget=64, keep=220)
    world.add(range(60))
    world.run()
    first, second = world.add(range(100, 180), 60), world.add(range(200, 270), 60)
    while not world.scheduler.num_preempted:
        world.step()
    assert not first.is_running or not second.is_running
    assert world.scheduler.cache.num_tokens == 63
    world.run()


def test_a_longer_conversation_replaces_its_own_beginning() -> None:
    world = World(1024, 4)
    world.add(range(40))
    world.run()
    world.add([*range(40), *world.answers[0], 9, 9])
    world.run()
    assert len(world.scheduler.cache) == 1


def test_when_the_one_waited_for_leaves_the_others_go_on() -> None:
    world = World(4096, 8, budget=64)
    first = world.add(range(600))
    others = [world.add([*range(600), n]) for n in range(3)]
    for _ in range(3):
        world.step()
    assert [other.is_running for other in others] == [False] * 3
    world.scheduler.finish(first)
    world.run()
    assert {other.serial for other in others} == set(world.answers)
    assert others[0].num_cached == 192
    assert others[1].num_cached == 600
