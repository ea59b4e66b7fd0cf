"""Sequences with images in the scheduler: what is shared, what shares a step, and at which positions."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.llamacpp.batch import Chunk
from backends.llamacpp.scheduler import Scheduler
from backends.llamacpp.sequence import ImageSpan, Sequence, token_array
from tests.llamacpp.test_scheduler import World, expected

Cells = list[tuple[int, int]]  # token and position


class PositionMemory:
    """Slots hold tokens by position; all rows of an image on a grid have its first one."""

    def __init__(self) -> None:
        self.slots: dict[int, Cells] = {}
        self.asked: Counter[ImageSpan] = Counter()

    def has_rows(self, image: ImageSpan, scope: str) -> bool:
        """Not at once."""
        self.asked[image] += 1
        return self.asked[image] > 2

    def copy(self, source: int, target: int, length: int) -> bool:
        assert not self.slots.get(target)
        return self._fill(target, self.slots[source], length)

    def remove(self, slot: int) -> None:
        self.slots.pop(slot, None)

    def save(self, slot: int) -> Cells:
        return list(self.slots[slot])

    def restore(self, saved: Cells, slot: int, length: int) -> bool:
        assert not self.slots.get(slot)
        return self._fill(slot, saved, length)

    def _fill(self, slot: int, cells: Cells, length: int) -> bool:
        """As llama.cpp can tell: by the last position."""
        self.slots[slot] = [cell for cell in cells if cell[1] < length]
        return self.slots[slot][-1][1] == length - 1

    def run(self, chunks: list[Chunk]) -> int:
        assert len({chunk.image is None for chunk in chunks}) == 1, "text and image in one step"
        assert chunks[0].image is None or len(chunks) == 1
        return sum(map(self._run, chunks))

    def _run(self, chunk: Chunk) -> int:
        sequence, end = chunk.sequence, chunk.start + chunk.length
        held = self.slots.setdefault(sequence.slot or 0, [])
        assert [token for token, _ in held] == list(sequence.tokens[: chunk.start])
        image, positions = chunk.image, positions_of(sequence)
        if image is None:
            assert not any(chunk.start <= image.start < end for image in sequence.images)
            assert sequence.position(chunk.start) == positions[chunk.start]
        else:
            assert end <= image.end
            assert not image.in_one_step or chunk.length == image.length
            assert sequence.position(image.start) == positions[image.start]
        held += zip(sequence.tokens[chunk.start : end], positions[chunk.start : end], strict=True)
        return chunk.length


def positions_of(sequence: Sequence) -> list[int]:
    """Of every token, by walking over them."""
    positions: list[int] = []
    place = index = 0
    while index < sequence.num_tokens:
        image = next((image for image in sequence.images if image.start == index), None)
        if image is None:
            positions.append(place)
            place, index = place + 1, index + 1
        else:
            on_grid = image.reach < image.length
            positions += [place if on_grid else place + row for row in range(image.length)]
            place, index = place + image.reach, index + image.length
    return positions


def stand_ins(name: int, length: int) -> list[int]:
    """The first two of every image agree, as those of a hash may."""
    return [-1 - row if row < 2 else -100 * (name + 1) - row for row in range(length)]


def with_images(parts: list[list[int] | int], length: int, reach: int, in_one_step: bool):
    """Tokens of texts and images (by number), and where the images are. Text ends it."""
    tokens: list[int] = []
    images: list[ImageSpan] = []
    for part in [*parts, [1]]:
        if isinstance(part, int):
            images.append(ImageSpan(len(tokens), length, reach, in_one_step, None))
            tokens += stand_ins(part, length)
        else:
            tokens += part
    return tokens, tuple(images)


class ImageWorld(World):
    def __init__(self, pool: int = 400, max_running: int = 4, **more) -> None:
        super().__init__(pool, max_running, **more)
        self.memory = PositionMemory()
        options = {"max_slots": 32, "budget": 32, "max_outputs": 16} | more
        self.scheduler = Scheduler(self.memory, pool=pool, max_running=max_running, **options)

    def add(self, tokens, max_tokens: int = 4, scope: str = "", images=()) -> Sequence:
        sequence = Sequence(self.serial, token_array(tokens), max_tokens, scope, images=images)
        self.serial += 1
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> list[Chunk]:
        for _ in range(4):
            chunks = self.scheduler.schedule()
            if chunks:
                break
            assert self.memory.asked, "nothing runs, and not for want of an image"
        self.computed += self.memory.run(chunks)
        self.scheduler.advance(chunks)
        for chunk in chunks:
            if chunk.ends_prompt:
                self.emit(chunk.sequence)
        self.scheduler.check_integrity()
        return chunks


PARTS = st.lists(
    st.one_of(st.integers(0, 2), st.lists(st.integers(0, 1), max_size=40)), min_size=1, max_size=5
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), PARTS, st.integers(1, 20)),
            st.tuples(st.just("step"), st.integers(1, 6)),
            st.tuples(st.just("cancel"), st.integers(0, 30)),
            st.tuples(st.just("relieve")),
        ),
        max_size=25,
    ),
    st.sampled_from([(20, 20, False), (20, 20, True), (20, 5, False), (3, 3, False)]),
    st.sampled_from([1, 3, 8]),
    st.sampled_from([None, 60, 400]),
)
def test_whatever_comes_all_finish_with_the_right_answers(events, shape, running, keep) -> None:
    world = ImageWorld(400, running, keep=keep, max_slots=running + 4)
    asked: dict[int, tuple[list[int], int]] = {}
    sequences: dict[int, Sequence] = {}
    for event in events:
        match event:
            case ("add", parts, count):
                tokens, images = with_images(parts, *shape)
                sequence = world.add(tokens, count, images=images)
                asked[sequence.serial], sequences[sequence.serial] = (tokens, count), sequence
            case ("step", times):
                for _ in range(times):
                    if world.scheduler.has_work:
                        world.step()
            case ("cancel", serial):
                if serial in sequences and serial not in world.answers:
                    world.scheduler.finish(sequences.pop(serial))
                    del asked[serial]
            case ("relieve",):
                world.scheduler.relieve()
    world.run()
    assert world.answers == {serial: expected(*it) for serial, it in asked.items()}


@pytest.mark.parametrize("keep", [None, 400])
@pytest.mark.parametrize("reach", [20, 5])
def test_an_image_is_shared_whole_or_not_at_all(keep, reach) -> None:
    world = ImageWorld(keep=keep)
    for name, cached in ((0, 0), (0, 40 + 20 + 2), (1, 40)):
        tokens, images = with_images([[1] * 40, name, [0, 0]], 20, reach, False)
        sequence = world.add(tokens, images=images)
        world.run()
        assert sequence.num_cached == cached


def test_answers_go_on_beside_an_image() -> None:
    world = ImageWorld(budget=8)
    talking = world.add([1, 0, 1], max_tokens=30)
    world.step()
    tokens, images = with_images([[1], 0], 40, 40, False)
    looking = world.add(tokens, images=images)
    said = [talking.num_answer]
    while looking.num_computed < images[0].end:
        world.step()
        said.append(talking.num_answer)
    assert all(later > before for before, later in zip(said, said[2:], strict=False))


def test_an_image_that_is_not_encoded_yet_holds_nobody_up() -> None:
    world = ImageWorld()
    world.memory.has_rows = lambda image, scope: False
    tokens, images = with_images([[1] * 20, 0], 40, 40, False)
    looking = world.add(tokens, images=images)
    talking = world.add([1, 0, 1], max_tokens=9)
    while talking.serial not in world.answers:
        world.step()
    assert looking.num_computed == 20
    assert world.scheduler.schedule() == []
    world.memory.has_rows = lambda image, scope: True
    world.run()
    assert world.answers[looking.serial] == expected(tokens, 4)


def test_an_image_that_is_run_in_one_step_may_exceed_the_budget() -> None:
    world = ImageWorld(budget=8)
    tokens, images = with_images([[1], 0], 40, 40, True)
    world.add(tokens, images=images)
    lengths = []
    while world.scheduler.has_work:
        lengths += [chunk.length for chunk in world.step() if chunk.image]
    assert lengths == [40]
