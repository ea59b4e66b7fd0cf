from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.llamacpp.batch import plan_chunks
from backends.llamacpp.sequence import Sequence, token_array


@st.composite
def running(draw) -> list[Sequence]:
    sequences = []
    for serial in range(draw(st.integers(0, 8))):
        length = draw(st.integers(1, 60))
        sequence = Sequence(serial, token_array(range(length)), 8)
        sequence.score_prompt = draw(st.booleans())
        sequence.num_computed = draw(st.integers(0, length - 1))
        sequence.slot = serial
        sequences.append(sequence)
    return sequences


@given(running(), st.integers(1, 100), st.integers(1, 32))
def test_budget_and_outputs_are_never_exceeded(sequences, budget, max_outputs) -> None:
    chunks = plan_chunks(sequences, budget, max_outputs)
    assert sum(chunk.length for chunk in chunks) <= budget
    assert sum(chunk.num_outputs for chunk in chunks) <= max_outputs
    assert len({chunk.sequence for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert chunk.length > 0
        assert chunk.start == chunk.sequence.num_computed
        assert chunk.start + chunk.length <= chunk.sequence.num_tokens
        assert chunk.num_outputs <= chunk.length


@given(running(), st.integers(9, 100))
def test_every_decode_row_is_in_and_somebody_always_gets_on(sequences, budget) -> None:
    chunks = plan_chunks(sequences, budget, 16)
    planned = {chunk.sequence for chunk in chunks}
    assert {sequence for sequence in sequences if sequence.is_decoding} <= planned
    assert bool(chunks) == bool(sequences)


@given(running(), st.integers(8, 64))
def test_all_prompts_are_computed_in_the_end(sequences, budget) -> None:
    seen: dict[Sequence, list[int]] = {s: list(range(s.num_computed)) for s in sequences}
    scored: dict[Sequence, int] = dict.fromkeys(sequences, 0)
    left = list(sequences)
    for _ in range(1000):
        chunks = plan_chunks(left, budget, 16)
        for chunk in chunks:
            seen[chunk.sequence] += range(chunk.start, chunk.start + chunk.length)
            scored[chunk.sequence] += chunk.scored
            chunk.sequence.num_computed += chunk.length
        left = [sequence for sequence in left if sequence.num_left]
        if not left:
            break
    for sequence, positions in seen.items():
        assert positions == list(range(sequence.num_tokens))


def test_older_prompts_come_first() -> None:
    sequences = [Sequence(n, token_array(range(50)), 8) for n in (3, 1, 2)]
    chunks = plan_chunks(sequences, 70, 16)
    assert [(c.sequence.serial, c.length) for c in chunks] == [(1, 50), (2, 20)]
