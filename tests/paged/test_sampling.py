from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from backends.llamacpp.sampler import Sampler, scored  # noqa: E402
from backends.llamacpp.sequence import token_array  # noqa: E402
from backends.paged.logprobs import score  # noqa: E402
from backends.paged.randomness import key_of, uniform  # noqa: E402
from backends.paged.sampling import Settings, Way, sample  # noqa: E402
from backends.paged.shaping import History, Shaping, shape  # noqa: E402
from backends.serving.engine import SamplingParams  # noqa: E402

CPU = torch.device("cpu")
SIZE = 40
DRAWS = 4000


def row(seed: int = 0, size: int = SIZE, scale: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, size).astype(np.float32)


def way(seed: int = 1, banned: Sequence[int] = (), **params) -> Way:
    return Way(SamplingParams(seed=seed, **params), seed, frozenset(banned))


def settings(ways: Sequence[Way], size: int = SIZE) -> Settings:
    return Settings.of(ways, size, CPU)


def one(
    logits: np.ndarray,
    tokens: Sequence[int] = (),
    num_prompt: int = 0,
    position: int = 0,
    mask=None,
    **how,
) -> int:
    told = way(**how)
    chosen = sample(
        torch.from_numpy(logits)[None],
        settings([told], len(logits)),
        torch.tensor([position]),
        History.of([tokens], [num_prompt], [told.params], CPU),
        mask,
    )
    return int(chosen)


def draws(logits: np.ndarray, count: int = DRAWS, seed: int = 1, **params) -> Counter[int]:
    chosen = sample(
        torch.from_numpy(logits).expand(count, -1),
        settings([way(seed, **params)] * count, len(logits)),
        torch.arange(count),
    )
    return Counter(chosen.tolist())


def theirs(logits: np.ndarray, count: int = DRAWS, **params) -> Counter[int]:
    sampler = Sampler(SamplingParams(seed=1, **params))
    return Counter(sampler.sample(logits, token_array(), 0, banned=set()) for _ in range(count))


def distance(one: Counter[int], other: Counter[int]) -> float:
    """Half the sum of differences between two distributions."""
    total, other_total = one.total(), other.total()
    return sum(abs(one[i] / total - other[i] / other_total) for i in one | other) / 2


def packed(allowed: Sequence[int], size: int) -> np.ndarray:
    words = np.zeros((size + 31) // 32, dtype=np.uint32)
    for token in allowed:
        words[token // 32] |= np.uint32(1 << (token % 32))
    return words.view(np.int32)


FILTERS = [
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 10_000, "top_p": 0.5},
    {"top_p": 0.0},
    {"top_p": 0.6},
    {"top_p": 0.9, "temperature": 1.5},
    {"min_p": 0.1},
    {"min_p": 0.3, "temperature": 2.0},
    {"typical_p": 0.5},
    {"typical_p": 0.3, "top_k": 9},
    {"top_k": 12, "typical_p": 0.8, "top_p": 0.8, "min_p": 0.05, "temperature": 0.7},
]


@pytest.mark.parametrize("params", FILTERS, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_it_draws_what_the_other_engine_draws(params, seed: int) -> None:
    logits = row(seed)
    mine, other = draws(logits, 5 * DRAWS, **params), theirs(logits, **params)
    assert distance(mine, other) < 0.05
    frequent = {token for token, count in other.items() if count > 20}
    assert frequent <= set(mine)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"logit_bias": {5: 3.0, 9: -100.0, 999: 5.0}},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.5, "penalty_last_n": 3},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 1.5, "penalty_last_n": 4},
        {"frequency_penalty": -2.0, "presence_penalty": 1.0, "repetition_penalty": 1.3},
        {"penalty_last_n": 0, "frequency_penalty": 9.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(5))
def test_greedy_is_the_other_engine_s_to_the_token(params, seed: int) -> None:
    logits = row(seed, scale=1.0)
    likely = np.argsort(-logits)[:6].tolist()
    tokens = [likely[i % 6] for i in (0, 1, 1, 2, 3, 0, 4, 4)]
    banned = {likely[1]}
    theirs = Sampler(SamplingParams(temperature=0.0, **params)).sample(
        logits, token_array(tokens), 3, banned=banned
    )
    assert one(logits, tokens, 3, temperature=0.0, banned=banned, **params) == theirs


@pytest.mark.parametrize(
    ("params", "counted", "of_prompt"),
    [
        ({"repetition_penalty": 1.1}, [1, 2, 3, 4, 5], 3),
        ({"repetition_penalty": 1.1, "penalty_last_n": 3}, [3, 4, 5], 1),
        ({"repetition_penalty": 1.1, "penalty_last_n": 9}, [1, 2, 3, 4, 5], 3),
        ({"presence_penalty": 1.0}, [4, 5], 0),
        ({"frequency_penalty": 1.0, "penalty_last_n": 1}, [5], 0),
    ],
    ids=str,
)
def test_only_tokens_that_count_go_to_the_device(
    params: dict[str, float], counted: list[int], of_prompt: int
) -> None:
    history = History.of([[1, 2, 3, 4, 5]], [3], [way(**params).params], CPU)
    assert history.tokens.tolist() == [counted]
    assert history.lengths.tolist() == [[len(counted)]]
    assert history.num_prompt.tolist() == [[of_prompt]]


def test_a_bias_is_added_and_no_other_word_changed() -> None:
    logits = torch.from_numpy(np.stack([row(0), row(1)]))
    params = [way(logit_bias={5: 3.0, 9: -100.0, 999: 5.0}).params, way(logit_bias={7: 1.0}).params]
    shaped = shape(logits, Shaping.of(params, [frozenset()] * 2, SIZE, CPU))
    expected = torch.zeros(2, SIZE)
    expected[0, [5, 9]] = torch.tensor([3.0, -100.0])
    expected[1, 7] = 1.0
    assert torch.equal(shaped, logits + expected)


def test_logits_are_not_changed() -> None:
    logits = torch.from_numpy(row())[None]
    before = logits.clone()
    told = way(banned=[3], logit_bias={4: 9.0}, repetition_penalty=1.5, top_p=0.5)
    history = History.of([[1, 2]], [1], [told.params], CPU)
    sample(logits, settings([told]), torch.tensor([0]), history)
    assert torch.equal(logits, before)


def test_a_row_is_drawn_alike_whoever_stands_beside_it() -> None:
    size = 5000
    ways = [
        way(seed, **params)
        for seed, params in enumerate(
            [{}, {"temperature": 0.0}, {"repetition_penalty": 2.0}, *FILTERS]
        )
    ]
    logits = torch.from_numpy(np.stack([row(i, size, scale=0.5) for i in range(len(ways))]))
    logits = logits.to(torch.bfloat16).float()  # many are equal
    positions = torch.arange(len(ways)) * 7
    history = {2: [5, 6, 7]}
    penalised = History.of([history[2]], [1], [ways[2].params], CPU)
    together = sample(logits, settings(ways, size), positions, penalised)
    for i, single in enumerate(ways):
        past = History.of([history[i]], [1], [single.params], CPU) if i in history else None
        alone = sample(logits[i : i + 1], settings([single], size), positions[i : i + 1], past)
        assert int(alone) == int(together[i]), single
    order = list(reversed(range(len(ways))))
    turned = sample(
        logits[order], settings([ways[i] for i in order], size), positions[order], penalised
    )
    assert torch.equal(turned.flip(0), together)


def test_top_p_keeps_equal_logits_together() -> None:
    size = 4096
    logits = np.zeros(size, np.float32)
    logits[: size // 2] = 0.5
    share = math.exp(0.5) / (math.exp(0.5) + 1)
    assert max(draws(logits, 1000, top_p=share * 0.9)) < size // 2
    assert max(draws(logits, 1000, top_p=share * 1.1)) >= size // 2


def test_seed_and_position_make_it_repeatable() -> None:
    logits = row()
    assert draws(logits, 50) == draws(logits, 50)
    assert draws(logits, 50, seed=2) != draws(logits, 50, seed=3)
    assert len({one(logits, position=i) for i in range(50)}) > 5
    assert len({one(logits, seed=i) for i in range(-25, 25)}) > 5


def test_random_numbers_are_spread_evenly() -> None:
    keys = [key_of(seed) for seed in range(100)]
    numbers = torch.tensor([[uniform(key, i) for key in keys] for i in range(100)])
    assert 0 <= float(numbers.min()) < 0.001
    assert 0.999 < float(numbers.max()) < 1
    counts = torch.histc(numbers, 20, 0, 1)
    assert float(counts.min()) > 400
    assert float(counts.max()) < 600
    centred = numbers - 0.5
    for left, right in ((centred[1:], centred[:-1]), (centred[:, 1:], centred[:, :-1])):
        assert abs(float((left * right).mean())) * 12 < 0.04


def test_a_draw_never_falls_on_what_has_no_weight() -> None:
    logits = np.full(SIZE, -np.inf, np.float32)
    logits[[3, 30]] = [1.0, 1.5]
    assert set(draws(logits)) == {3, 30}
    assert set(draws(logits, top_p=0.9999)) == {3, 30}


def test_a_mask_leaves_only_what_it_allows() -> None:
    size = 77
    logits = np.stack([row(i, size) for i in range(3)])
    masks = np.stack([packed([4, 31, 32, 76], size), packed([], size), packed(range(96), 96)])
    for params in ({"temperature": 0.0}, {}, {"top_p": 0.5}):
        chosen = sample(
            torch.from_numpy(logits),
            settings([way(seed, **params) for seed in range(3)], size),
            torch.zeros(3, dtype=torch.int64),
            mask=torch.from_numpy(masks),
        ).tolist()
        assert chosen[0] in (4, 31, 32, 76)
        assert chosen[1] == -1
        assert 0 <= chosen[2] < size
    with pytest.raises(ValueError, match="words"):
        sample(
            torch.from_numpy(logits),
            settings([way()] * 3, size),
            torch.zeros(3, dtype=torch.int64),
            mask=torch.from_numpy(masks[:, :2]),
        )


def test_masks_are_packed_as_llguidance_packs_them() -> None:
    llguidance = pytest.importorskip("llguidance", reason="needs llguidance")
    import llguidance.numpy as guidance

    tokenizer = llguidance.LLTokenizer("byte")
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_regex("[b-d]"))
    mask = guidance.allocate_token_bitmask(1, tokenizer.vocab_size)
    guidance.fill_next_token_bitmask(matcher, mask)
    logits = row(0, tokenizer.vocab_size)
    chosen = {
        one(logits, mask=torch.from_numpy(mask), position=i, temperature=3.0) for i in range(200)
    }
    assert chosen == {ord("b"), ord("c"), ord("d")}


def test_scores_are_the_model_s_own() -> None:
    logits = np.stack([row(0), row(1)])
    tokens = torch.tensor([17, 32])
    scores = score(torch.from_numpy(logits), tokens, 5)
    for i in range(2):
        theirs = scored(logits[i], int(tokens[i]), 5)
        assert float(scores.chosen[i]) == pytest.approx(theirs.logprob, abs=1e-5)
        assert scores.top_ids[i].tolist() == [token for token, _ in theirs.top]
        assert scores.top[i].tolist() == pytest.approx([p for _, p in theirs.top], abs=1e-5)
    assert score(torch.from_numpy(logits), tokens, 0).top_ids.shape == (2, 0)
