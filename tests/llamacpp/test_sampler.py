from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.llamacpp.sampler import BLOCK, Sampler, scored
from backends.llamacpp.sequence import token_array
from backends.serving.engine import SamplingParams

SIZE = 3 * BLOCK + 100


def row(seed: int = 0, size: int = SIZE, scale: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, size).astype(np.float32)


def draws(logits: np.ndarray, count: int, **params) -> Counter[int]:
    sampler = Sampler(SamplingParams(**{"seed": 1} | params))
    empty = token_array()
    return Counter(sampler.sample(logits, empty, 0, banned=set()) for _ in range(count))


def one(logits: np.ndarray, tokens=(), num_prompt: int = 0, banned=(), **params) -> int | None:
    sampler = Sampler(SamplingParams(**params))
    return sampler.sample(logits, token_array(tokens), num_prompt, banned=set(banned))


def test_greedy_is_the_largest() -> None:
    logits = row()
    assert one(logits, temperature=0.0) == int(logits.argmax())


def test_the_row_is_not_changed() -> None:
    logits = row()
    before = logits.copy()
    one(
        logits,
        [1, 2, 3],
        banned=[5],
        logit_bias={4: 9.0},
        repetition_penalty=1.5,
        presence_penalty=1.0,
        top_p=0.5,
    )
    assert np.array_equal(before, logits)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.5},
        {"top_p": 0.9},
        {"top_k": 7},
        {"min_p": 0.1},
        {"typical_p": 0.5},
        {"top_k": 40, "top_p": 0.8, "min_p": 0.05, "temperature": 0.7},
    ],
)
def test_a_seed_makes_it_repeatable(params) -> None:
    assert draws(row(), 50, **params) == draws(row(), 50, **params)
    assert draws(row(), 50, seed=2, **params) != draws(row(), 50, seed=3, **params)


def test_plain_draws_follow_the_distribution() -> None:
    logits = np.full(SIZE, -np.inf, np.float32)
    shares = {3: 0.5, BLOCK + 1: 0.25, 2 * BLOCK: 0.15, SIZE - 1: 0.1}
    for token, share in shares.items():
        logits[token] = math.log(share)
    counts = draws(logits, 4000)
    assert set(counts) == set(shares)
    for token, share in shares.items():
        assert counts[token] / 4000 == pytest.approx(share, abs=0.03)


def test_temperature_flattens() -> None:
    logits = np.full(SIZE, -np.inf, np.float32)
    logits[:2] = 0.0, 2.0
    cold, hot = draws(logits, 2000, temperature=0.5), draws(logits, 2000, temperature=4.0)
    assert cold[0] / 2000 == pytest.approx(1 / (1 + math.exp(4)), abs=0.02)
    assert hot[0] / 2000 == pytest.approx(1 / (1 + math.exp(0.5)), abs=0.04)


def test_top_k_leaves_so_many() -> None:
    logits = row()
    best = set(np.argsort(-logits)[:5].tolist())
    assert set(draws(logits, 500, top_k=5)) == best
    assert set(draws(logits, 20, top_k=1)) == {int(logits.argmax())}


def reference(logits: np.ndarray, top_p: float) -> set[int]:
    order = np.argsort(-logits)
    shares = np.exp(logits[order] - logits.max()).astype(np.float64)
    shares /= shares.sum()
    return set(order[: int(np.searchsorted(shares.cumsum(), top_p)) + 1].tolist())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.95))
def test_top_p_leaves_the_nucleus(seed, top_p) -> None:
    logits = row(seed, scale=4.0)
    assert set(draws(logits, 200, top_p=top_p)) <= reference(logits, top_p)


def test_min_p_leaves_those_near_the_best() -> None:
    logits = row()
    near = set(np.nonzero(logits >= logits.max() + math.log(0.3))[0].tolist())
    assert set(draws(logits, 1000, min_p=0.3)) == near


def test_typical_drops_the_obvious() -> None:
    logits = np.full(SIZE, -np.inf, np.float32)
    logits[:4] = np.log([0.4, 0.3, 0.2, 0.1])
    assert 3 not in draws(logits, 500, typical_p=0.6)


def test_a_flat_vocabulary_is_no_trouble() -> None:
    assert sum(draws(np.zeros(150_000, np.float32), 5, top_p=0.9).values()) == 5


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 100),
    st.floats(0, 3),
    st.integers(0, 3000),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(0.01, 1),
)
def test_any_parameters_give_a_token(seed, temperature, top_k, top_p, min_p, typical_p) -> None:
    params = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    token = one(row(seed), **params, min_p=min_p, typical_p=typical_p, seed=seed)
    assert token is not None
    assert 0 <= token < SIZE


def test_bias_bans_and_forces() -> None:
    logits = row()
    best = int(logits.argmax())
    assert one(logits, temperature=0.0, logit_bias={best: -100.0}) != best
    assert one(logits, temperature=0.0, logit_bias={17: 100.0, SIZE + 5: 100.0}) == 17
    assert one(logits, temperature=0.0, banned=[best]) != best


def test_repetition_counts_prompt_and_answer_the_others_only_the_answer() -> None:
    logits = np.zeros(SIZE, np.float32)
    logits[:3] = 3.0, 2.9, 2.0
    assert one(logits, [0], 1, temperature=0.0, repetition_penalty=2.0) == 1
    assert one(logits, [0], 1, temperature=0.0, presence_penalty=1.0) == 0
    assert one(logits, [9, 0], 1, temperature=0.0, presence_penalty=1.0) == 1
    assert one(logits, [9, 0, 1, 1], 1, temperature=0.0, frequency_penalty=0.5) == 0
    assert one(logits, [9, 0, 0, 1], 1, temperature=0.0, frequency_penalty=0.5) == 1


def test_penalties_look_back_so_far() -> None:
    logits = np.zeros(SIZE, np.float32)
    logits[:2] = 3.0, 2.9
    tokens = [0, 5, 5, 5]
    params = {"temperature": 0.0, "repetition_penalty": 2.0}
    assert one(logits, tokens, 1, **params, penalty_last_n=3) == 0
    assert one(logits, tokens, 1, **params, penalty_last_n=4) == 1
    assert one(logits, tokens, 1, **params, penalty_last_n=0) == 0


def test_scores_are_a_distribution() -> None:
    logits = row()
    token = scored(logits, 7, 20)
    assert token.id == 7
    assert [logprob for _, logprob in token.top] == sorted((p for _, p in token.top), reverse=True)
    assert token.top[0][0] == int(logits.argmax())
    everything = scored(logits, 7, SIZE)
    assert math.fsum(math.exp(logprob) for _, logprob in everything.top) == pytest.approx(
        1.0, abs=1e-5
    )


class OnlyEven:
    """A grammar whose one constraint allows every second token."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def start(self) -> OnlyEven:
        return self

    def mask(self) -> bytes:
        return b"\x55" * (-(-SIZE // 32) * 4)

    def accept(self, token: int) -> bool:
        self.accepted.append(token)
        return len(self.accepted) == 50


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"top_p": 0.9}, {"min_p": 0.1}, {}])
def test_a_constraint_is_kept(params) -> None:
    constraint = OnlyEven()
    sampler = Sampler(SamplingParams(seed=1, grammar=constraint, **params))
    for seed in range(50):
        token = sampler.sample(row(seed), token_array(), 0, banned=set())
        assert token is not None
        assert token % 2 == 0
        assert sampler.accept(token) is (seed == 49)


def test_nothing_allowed_is_no_token() -> None:
    constraint = OnlyEven()
    sampler = Sampler(SamplingParams(grammar=constraint))
    banned = set(range(0, SIZE, 2))
    assert sampler.sample(row(1), token_array(), 0, banned=banned) is None
