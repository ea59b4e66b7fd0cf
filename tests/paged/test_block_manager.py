"""Blocks: who holds them, what is remembered of them, in which order they are forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.paged.block_manager import BlockManager
from backends.paged.sequence import BLOCK_SIZE, Sequence


def published(blocks: BlockManager, count: int) -> tuple[list[int], list[bytes]]:
    """So many blocks, computed and given back."""
    held = blocks.allocate(count)
    digests = [bytes([index]) for index in range(count)]
    for block, digest in zip(held, digests, strict=True):
        blocks.publish(block, digest)
    blocks.release(held)
    return held, digests


def test_a_free_block_can_be_taken_over_until_it_is_handed_out() -> None:
    blocks = BlockManager(4)
    held, digests = published(blocks, 2)
    assert blocks.find(digests) == held
    assert blocks.num_idle(held) == 2
    blocks.share(held)
    assert blocks.num_free == 2
    assert blocks.num_idle(held) == 0
    blocks.release(held)
    blocks.allocate(4)
    assert blocks.find(digests) == []


def test_the_end_of_a_text_is_forgotten_before_its_beginning() -> None:
    blocks = BlockManager(4)
    held, digests = published(blocks, 4)
    blocks.allocate(1)
    assert blocks.find(digests) == held[:3]
    blocks.allocate(2)
    assert blocks.find(digests) == held[:1]


def test_what_was_used_last_is_forgotten_last() -> None:
    blocks = BlockManager(2)
    held, digests = published(blocks, 2)
    blocks.share(held[1:])  # the block that would have gone first
    blocks.release(held[1:])
    blocks.allocate(1)
    assert blocks.find(digests[1:]) == held[1:]


def test_a_block_given_back_twice_is_noticed() -> None:
    blocks = BlockManager(2)
    held = blocks.allocate(1)
    blocks.release(held)
    with pytest.raises(AssertionError):
        blocks.release(held)


def test_one_text_in_two_blocks_is_remembered_once() -> None:
    blocks = BlockManager(2)
    first, second = blocks.allocate(2)
    blocks.publish(first, b"same")
    blocks.publish(second, b"same")
    blocks.check_integrity([[first, second]])
    assert blocks.find([b"same"]) == [first]


def test_what_is_forgotten_is_never_taken_over() -> None:
    blocks = BlockManager(3)
    _, digests = published(blocks, 2)
    held = blocks.allocate(1)
    blocks.publish(held[0], b"held")
    blocks.forget()
    blocks.check_integrity([held])
    assert blocks.find(digests) == blocks.find([b"held"]) == []
    assert blocks.num_used == 1


@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.lists(st.integers(0, 3), max_size=60),
    st.sampled_from(["", "a"]),
    st.sampled_from(["", "a"]),
)
def test_digests_agree_exactly_where_scope_and_beginning_do(
    left: list[int], right: list[int], left_scope: str, right_scope: str
) -> None:
    one, two = Sequence(0, left, 1, left_scope), Sequence(1, right, 1, right_scope)
    ones = one.digests(len(left) // BLOCK_SIZE)
    twos = two.digests(len(right) // BLOCK_SIZE)
    for index, (a, b) in enumerate(zip(ones, twos, strict=False)):
        end = (index + 1) * BLOCK_SIZE
        assert (a == b) == (left[:end] == right[:end] and left_scope == right_scope)


def test_digests_do_not_depend_on_when_they_were_asked_for() -> None:
    tokens = list(range(5 * BLOCK_SIZE))
    early = Sequence(0, list(tokens), 1)
    early.digests(2)
    assert early.digests(5) == Sequence(1, tokens, 1).digests(5)
    assert early.digests(2) == early.digests(5)[:2]
