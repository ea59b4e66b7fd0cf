"""The scheduler against a cache that remembers what was written where: no step may read what is not there."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.paged.block_manager import BlockManager
from backends.paged.scheduler import Chunk, Scheduler, plan_chunks
from backends.paged.sequence import BLOCK_SIZE, Sequence, cdiv

Prefix = tuple[str, tuple[int, ...]]


@dataclass
class Machine:
    """A scheduler with a make-believe model. Every cell holds the text up to and with its token."""

    num_blocks: int
    budget: int = 64
    max_running: int = 4
    overlaps: bool = False  # a step is planned before the tokens of the one before it are known
    cells: dict[int, Prefix] = field(default_factory=dict)
    finished: list[Sequence] = field(default_factory=list)
    chosen: dict[Sequence, int] = field(default_factory=dict)  # and not yet known

    def __post_init__(self) -> None:
        blocks = BlockManager(self.num_blocks)
        self.scheduler = Scheduler(blocks, budget=self.budget, max_running=self.max_running)

    def step(self) -> list[Chunk]:
        before = list(self.scheduler.running)
        chunks = self.scheduler.schedule()
        self.scheduler.check_integrity()
        stayed = [sequence.serial for sequence in self.scheduler.running]
        for sequence in before:
            assert sequence.is_running or sequence.serial > max(stayed), "not the youngest"
        assert sum(chunk.length for chunk in chunks) <= self.budget
        assert len({chunk.sequence for chunk in chunks}) == len(chunks)
        for chunk in chunks:
            self.compute(chunk)
        self.scheduler.advance(chunks)
        self.read()
        for chunk in chunks:
            sequence = chunk.sequence
            if sequence.is_running and chunk.is_last:
                self.chosen[sequence] = answer_to(sequence.tokens, sequence.serial % 2)
                sequence.is_ahead = sequence.num_answer + 1 < sequence.max_tokens
        if not self.overlaps:
            self.read()
        self.scheduler.check_integrity()
        return chunks

    def read(self) -> None:
        for sequence, token in self.chosen.items():
            sequence.is_ahead = False
            sequence.tokens.append(token)
            if sequence.num_answer >= sequence.max_tokens or token == END:
                self.scheduler.finish(sequence)
                self.finished.append(sequence)
        self.chosen.clear()

    def compute(self, chunk: Chunk) -> None:
        sequence = chunk.sequence
        tokens = [*sequence.tokens, *([self.chosen[sequence]] if sequence.is_ahead else [])]
        assert chunk.end <= len(tokens)
        assert chunk.length == 1 or chunk.end <= len(sequence.tokens), "a runner cannot do that"
        assert chunk.start == sequence.num_computed
        for position in range(chunk.end):
            cell = sequence.blocks[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
            text = (sequence.scope, tuple(tokens[: position + 1]))
            if position >= chunk.start:
                self.cells[cell] = text
            assert self.cells[cell] == text, "a step would have read another text's cell"

    def run(self, limit: int = 10_000) -> None:
        for _ in range(limit):
            if not self.scheduler.has_work:
                return
            assert self.step() or self.overlaps, "there is work, and nothing is done"
        raise AssertionError("no end")


END = 4  # the token that ends an answer


def answer_to(tokens: list[int], voice: int = 0) -> int:
    """A token that depends on all that stands before it and on who says it, and seldom is the last."""
    token = hash((voice, *tokens)) % 64
    return END if token == 63 else token % END


def test_decodes_go_first_and_prompts_share_what_is_left() -> None:
    running = [
        Sequence(0, [1] * 100, 8),
        Sequence(1, [1] * 30, 8),
        Sequence(2, [1] * 30, 8),
    ]
    running[1].num_computed = 29
    chunks = plan_chunks(running, 64)
    assert [(chunk.sequence.serial, chunk.start, chunk.length) for chunk in chunks] == [
        (1, 29, 1),
        (0, 0, 63),
    ]
    for sequence in running:
        sequence.num_computed = sequence.num_tokens - 1
    assert [chunk.sequence.serial for chunk in plan_chunks(running, 2)] == [0, 1]


@pytest.mark.parametrize("length", [17, 40, 48])
def test_a_prompt_is_computed_once_for_all_who_have_it(length: int) -> None:
    machine = Machine(64)
    for serial in range(3):
        machine.scheduler.add(Sequence(serial, list(range(length)), 4))
    shared = (length - 1) // BLOCK_SIZE * BLOCK_SIZE
    assert [chunk.length for chunk in machine.step()] == [length]
    assert [chunk.length for chunk in machine.step()] == [1, length - shared, length - shared]
    machine.run()
    assert [sequence.num_cached for sequence in machine.finished] == [0, shared, shared]


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("before", [0, 11, 12, 13, 40])
def test_all_that_was_computed_can_be_taken_over(before: int, overlaps: bool) -> None:
    """Whenever somebody looks whether a beginning is coming, and however late tokens are known."""
    text = list(range(20, 40))
    while len(text) < 65:
        text.append(answer_to(text))
    assert END not in text
    machine = Machine(64, overlaps=overlaps)
    machine.scheduler.add(Sequence(0, text[:20], 45))
    for _ in range(before):
        machine.step()
    machine.scheduler.add(Sequence(1, [*text[:33], 7], 1))
    machine.run()
    machine.scheduler.add(Sequence(2, [*text, 8], 1))
    machine.run()
    assert machine.finished[-1].num_cached == 64


def test_nothing_is_shared_between_scopes() -> None:
    machine = Machine(64)
    for serial, scope in enumerate(["alice", "bob", "alice"]):
        machine.scheduler.add(Sequence(serial, list(range(40)), 4, scope))
        machine.run()
    assert [sequence.num_cached for sequence in machine.finished] == [0, 0, 32]


def test_who_needs_all_rows_takes_nothing_over() -> None:
    machine = Machine(64)
    machine.scheduler.add(Sequence(0, list(range(40)), 4))
    machine.run()
    machine.scheduler.add(Sequence(1, list(range(40)), 4, needs_all_rows=True))
    machine.run()
    assert machine.finished[1].num_cached == 0


def test_at_least_one_token_is_left_to_compute() -> None:
    machine = Machine(64)
    for serial in range(2):
        machine.scheduler.add(Sequence(serial, list(range(2 * BLOCK_SIZE)), 4))
        machine.run()
    assert machine.finished[1].num_cached == BLOCK_SIZE


def test_the_youngest_goes_back_and_everybody_finishes() -> None:
    machine = Machine(8)
    for serial in range(4):
        machine.scheduler.add(Sequence(serial, [serial] * 20, 60))
    machine.run()
    assert machine.scheduler.num_preempted > 0
    assert len(machine.finished) == 4
    assert machine.scheduler.blocks.num_free == 8


def test_what_is_shared_needs_no_room() -> None:
    machine = Machine(8)
    for serial in range(2):
        machine.scheduler.add(Sequence(serial, [1] * 65, 16))
        machine.step()
    assert len(machine.scheduler.running) == 2


@pytest.mark.parametrize("forgets", [False, True])
def test_what_was_computed_again_is_there_for_others(forgets: bool) -> None:
    machine = Machine(64)
    machine.scheduler.add(Sequence(0, list(range(40)), 8))
    machine.step()
    machine.scheduler.preempt(machine.scheduler.running[0])
    if forgets:
        machine.scheduler.blocks.forget()
    machine.run()
    machine.scheduler.add(Sequence(1, list(range(40)), 8))
    machine.run()
    assert [sequence.num_cached for sequence in machine.finished] == [0, 32]


def test_what_is_cached_and_held_by_nobody_takes_room_when_it_is_shared() -> None:
    machine = Machine(9)
    machine.scheduler.add(Sequence(0, [1] * 65, 10))
    machine.run()
    for serial in (1, 2):
        machine.scheduler.add(Sequence(serial, [serial % 2 + 1] * 65, 10))
        machine.step()
    assert [sequence.serial for sequence in machine.scheduler.running] == [1]
    assert machine.scheduler.num_preempted == 0


def test_who_finds_no_room_is_not_overtaken() -> None:
    machine = Machine(8)
    for serial, length in enumerate([60, 80, 5]):
        machine.scheduler.add(Sequence(serial, [serial] * length, 10))
    machine.step()
    assert [sequence.serial for sequence in machine.scheduler.running] == [0]
    machine.run()
    assert machine.finished[0].serial == 0


def test_who_is_sent_back_goes_before_those_who_came_later() -> None:
    machine = Machine(64, max_running=1)
    for serial in range(3):
        machine.scheduler.add(Sequence(serial, [serial] * 20, 10))
    machine.step()
    machine.scheduler.preempt(machine.scheduler.running[0])
    machine.run()
    assert [sequence.serial for sequence in machine.finished] == [0, 1, 2]


def test_a_sequence_as_large_as_the_cache_finishes_beside_others() -> None:
    machine = Machine(8)
    machine.scheduler.add(Sequence(0, [3] * 20, 40))
    machine.scheduler.add(Sequence(1, list(range(100)), 8 * BLOCK_SIZE - 100))
    machine.scheduler.add(Sequence(2, [4] * 20, 40))
    machine.run()
    assert len(machine.finished) == 3


def test_a_budget_of_one_token_is_enough() -> None:
    machine = Machine(8, budget=1)
    for serial in range(3):
        machine.scheduler.add(Sequence(serial, [serial] * 20, 4))
    machine.run()
    assert len(machine.finished) == 3


def test_a_sequence_larger_than_the_cache_is_noticed() -> None:
    machine = Machine(2)
    machine.scheduler.add(Sequence(0, [3] * 40, 40))
    with pytest.raises(AssertionError, match="larger"):
        machine.run()


@st.composite
def _workloads(
    draw: st.DrawFn, longest_prompt: int = 1000, longest_answer: int = 60
) -> tuple[int, list[Sequence]]:
    """Some blocks, and sequences of which each has room alone; many begin alike."""
    num_blocks = draw(st.integers(4, 16))
    room = num_blocks * BLOCK_SIZE
    sequences = []
    for serial in range(draw(st.integers(1, 10))):
        length = draw(st.integers(1, min(longest_prompt, room - 1)))
        kind = draw(st.integers(0, 2))
        prompt = [kind if position < 50 else draw(st.integers(0, 1)) for position in range(length)]
        max_tokens = draw(st.integers(1, min(longest_answer, room - length)))
        scope = draw(st.sampled_from(["", "a"]))
        sequences.append(Sequence(serial, prompt, max_tokens, scope, draw(st.booleans())))
    return num_blocks, sequences


@settings(max_examples=150, deadline=None)
@given(
    _workloads(),
    st.integers(3, 100),
    st.integers(1, 6),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_every_sequence_finishes_with_its_own_answer(
    workload: tuple[int, list[Sequence]],
    budget: int,
    max_running: int,
    overlaps: bool,
    chance: random.Random,
) -> None:
    num_blocks, sequences = workload
    machine = Machine(num_blocks, budget, max_running, overlaps)
    late, cancelled = list(sequences), set()
    for _ in range(20_000):
        if late and chance.random() < 0.3:
            machine.scheduler.add(late.pop(0))
        running = machine.scheduler.running
        if running and chance.random() < 0.05:
            machine.scheduler.preempt(chance.choice(running))
        present = [*running, *machine.scheduler.waiting]
        if present and chance.random() < 0.02:
            leaver = chance.choice(present)
            cancelled.add(leaver)
            machine.scheduler.finish(leaver)
            machine.chosen.pop(leaver, None)
        if not late and not machine.scheduler.has_work:
            break
        machine.step()
    finished = set(machine.finished)
    assert finished | cancelled == set(sequences)
    for sequence in finished:
        tokens = sequence.tokens[: sequence.num_prompt]
        while len(tokens) < sequence.num_prompt + sequence.max_tokens and END not in tokens[-1:]:
            tokens.append(answer_to(tokens, sequence.serial % 2))
        assert tokens == sequence.tokens
    assert machine.scheduler.blocks.num_free == num_blocks
    assert all(cdiv(s.num_tokens, BLOCK_SIZE) <= num_blocks for s in finished)


@settings(max_examples=100, deadline=None)
@given(
    _workloads(longest_prompt=5 * BLOCK_SIZE, longest_answer=BLOCK_SIZE),
    st.integers(8, 100),
    st.integers(2, 6),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_nobody_is_sent_back_whose_answer_takes_no_more_than_a_block(
    workload: tuple[int, list[Sequence]],
    budget: int,
    max_running: int,
    overlaps: bool,
    chance: random.Random,
) -> None:
    num_blocks, sequences = workload
    machine = Machine(num_blocks, budget, max_running, overlaps)
    for sequence in sequences:
        machine.scheduler.add(sequence)
        while machine.scheduler.has_work and chance.random() < 0.9:
            machine.step()
    machine.run()
    assert machine.scheduler.num_preempted == 0
    assert len(machine.finished) == len(sequences)
