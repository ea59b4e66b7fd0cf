"""The real engine on tiny random models."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re

import pytest

from backends.serving import constraint
from backends.serving.engine import EngineError, Grammar, Token
from tests.serving.engine_client import EngineClient

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. "
PROMPTS = [
    "x",
    "hello world",
    TEXT,
    TEXT * 3,
    TEXT * 2 + "So?",
    "the quick brown fox",
    "1 2 3 4 5 6 7",
    TEXT + "!",
]


def metric(engine, name: str) -> float:
    for line in engine.metrics().splitlines():
        if line.startswith(f"llamacpp:{name} "):
            return float(line.split()[1])
    raise KeyError(name)


@pytest.fixture(params=[("f32", 0.01), ("q8_0", 0.3)], ids=lambda param: param[0])
def model(request, tiny, tiny_q8):
    """A file, and how near two logprobs may be for rounding to choose between them."""
    kind, near = request.param
    return (tiny if kind == "f32" else tiny_q8), near


async def alone(open_engine, path, prompts, count=24) -> list[list[Token]]:
    """Each prompt by itself, in one chunk, nothing reused; with the runners-up of every token."""
    answers = []
    async with open_engine(path, parallel=1) as engine:
        client = EngineClient(engine)
        for n, prompt in enumerate(prompts):
            steps = await client.progress(prompt, count, scope=str(n), logprobs=8)
            answers.append([token for step in steps for token in step.tokens])
    return answers


def assert_same(answers: list[list[int]], expected: list[list[Token]], near: float) -> None:
    """The same tokens, up to where the model itself could not decide."""
    for answer, tokens in zip(answers, expected, strict=True):
        assert len(answer) == len(tokens)
        for got, token in zip(answer, tokens, strict=True):
            if got != token.id:
                others = dict(token.top)
                assert got in others
                assert token.logprob - others[got] < near
                break


@pytest.mark.parametrize(
    "options",
    [
        {"parallel": 8},
        {"parallel": 3},
        {"parallel": 8, "batch": 16},
        {"parallel": 8, "batch": 64, "ubatch": 8},
        {"parallel": 8, "context": 300, "kv_tokens": 512},
    ],
)
async def test_greedy_answers_do_not_depend_on_company(open_engine, model, options) -> None:
    path, near = model
    expected = await alone(open_engine, path, PROMPTS)
    async with open_engine(path, **options) as engine:
        client = EngineClient(engine)
        assert_same(await client.ask_all(PROMPTS, 24), expected, near)
        assert_same(await client.ask_all(PROMPTS, 24), expected, near)  # with cached beginnings
        assert metric(engine, "prompt_tokens_cached_total") > 0


async def test_preempted_sequences_answer_the_same(open_engine, tiny) -> None:
    prompts = [f"{n} " + TEXT for n in range(4)]
    expected = await alone(open_engine, tiny, prompts, 120)
    async with open_engine(tiny, parallel=4, context=256, kv_tokens=512) as engine:
        assert_same(await EngineClient(engine).ask_all(prompts, 120), expected, 0.01)
        assert metric(engine, "preemptions_total") > 0


async def test_a_recurrent_model(open_engine, tiny_recurrent) -> None:
    expected = await alone(open_engine, tiny_recurrent, PROMPTS)
    async with open_engine(tiny_recurrent, parallel=4) as engine:
        client = EngineClient(engine)
        answers = await client.ask_all(PROMPTS, 24)
        assert_same(answers, expected, 0.01)
        assert_same(await client.ask_all(PROMPTS, 24), expected, 0.01)
        said = client.encode(PROMPTS[-1]) + answers[-1]
        follow_up = await client.progress([*said, 65, 66], 24)
        assert follow_up[0].num_cached_tokens == len(said) - 1  # a kept state, to its very end
        anew = await client.progress([*said, 65, 66], 24, scope="other")
        assert [step.tokens[0].id for step in follow_up] == [step.tokens[0].id for step in anew]


async def test_a_request_as_large_as_the_pool(open_engine, tiny) -> None:
    async with open_engine(tiny, parallel=4, context=512) as engine:
        client = EngineClient(engine)
        prompt = client.encode(TEXT * 5)[:300]
        answers = await asyncio.gather(client.ask(prompt, 212), client.ask("y" * 100, 50))
        assert [len(answer) for answer in answers] == [212, 50]


async def test_steps_carry_several_sequences(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        await EngineClient(engine).ask_all([f"{n}" for n in range(8)], 200)
        assert metric(engine, "n_decode_total") < 8 * 200 / 3


async def test_simultaneous_prompts_share_their_beginning(open_engine, tiny) -> None:
    common = TEXT * 9
    prompts = [common + f"{n} and more" for n in range(8)]
    async with open_engine(tiny, batch=64) as engine:
        client = EngineClient(engine)
        steps = await asyncio.gather(*(client.progress(prompt, 4) for prompt in prompts))
        length = len(client.encode(common))
        total = sum(len(client.encode(prompt)) for prompt in prompts)
        assert length > 500
        assert sorted(s[0].num_cached_tokens for s in steps)[1:] == [length] * 7
        assert metric(engine, "prompt_tokens_total") == total - 7 * length


async def test_nothing_is_shared_across_scopes(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        first = await client.progress(TEXT, 4, scope="a")
        other = await client.progress(TEXT, 4, scope="b")
        again = await client.progress(TEXT, 4, scope="a")
        assert [steps[0].num_cached_tokens for steps in (first, other)] == [0, 0]
        assert again[0].num_cached_tokens == len(client.encode(TEXT)) - 1


async def test_a_seed_repeats_in_any_company(open_engine, tiny) -> None:
    params = {"temperature": 1.0, "top_p": 0.95, "seed": 7}
    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        expected = await client.ask(TEXT, 30, **params)
        others = [client.ask(f"{n}" + TEXT, 40, temperature=1.0, seed=n) for n in range(5)]
        together = await asyncio.gather(client.ask(TEXT, 30, **params), *others)
        assert together[0] == expected
        assert await client.ask(TEXT, 30, **params | {"seed": 8}) != expected
        unseeded = {"temperature": 1.0}
        assert await client.ask(TEXT, 30, **unseeded) != await client.ask(TEXT, 30, **unseeded)


async def test_leaving_stops_the_sequence(open_engine, tiny) -> None:
    async with open_engine(tiny, parallel=1) as engine:
        client = EngineClient(engine)
        steps = engine.generate(client.request(TEXT, 1500))
        async with contextlib.aclosing(steps):
            async for _ in steps:
                break
        assert len(await client.ask("hello", 8)) == 8  # its slot is free
        assert metric(engine, "requests_processing") == 0
        assert metric(engine, "tokens_predicted_total") < 1500


async def test_cancelling_the_reader_stops_the_sequence(open_engine, tiny) -> None:
    async with open_engine(tiny, parallel=1) as engine:
        client = EngineClient(engine)
        reader = await client.start(TEXT, 1500)
        waiting = asyncio.create_task(client.ask("never admitted", 1500))
        for task in (reader, waiting):
            task.cancel()
        assert len(await client.ask("hello", 8)) == 8
        assert metric(engine, "requests_deferred") == 0


async def test_what_was_computed_for_one_who_left_is_kept(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        steps = engine.generate(client.request(TEXT, 1500))
        async with contextlib.aclosing(steps):
            async for _ in steps:
                break
        again = await client.progress(TEXT, 4)
        assert again[0].num_cached_tokens == len(client.encode(TEXT)) - 1


async def test_logprobs(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        plain = await client.ask(TEXT, 8)
        steps = await client.progress(TEXT, 8, logprobs=engine.info.vocab_size)
        tokens = [token for step in steps for token in step.tokens]
        assert [token.id for token in tokens] == plain
        for token in tokens:
            assert token.top[0] == (token.id, token.logprob)
            assert math.fsum(math.exp(logprob) for _, logprob in token.top) == pytest.approx(
                1, abs=1e-4
            )


async def test_prompt_logprobs(open_engine, tiny) -> None:
    async with open_engine(tiny, parallel=2) as engine:
        client = EngineClient(engine)
        prompt = client.encode(TEXT)
        await client.ask(prompt, 4)
        both = await asyncio.gather(
            client.progress(prompt, 4, logprobs=3, prompt_logprobs=True), client.ask("company", 60)
        )
        scores = both[0][0].prompt_logprobs
        assert all(step.prompt_logprobs is None for step in both[0][1:])
        assert len(scores) == len(prompt)
        assert scores[0] is None
        assert [score.id for score in scores[1:]] == prompt[1:]
        for position in (1, 17, len(prompt) - 1):
            step = (await client.progress(prompt[:position], 1, logprobs=3))[0]
            top = step.tokens[0].top
            assert [token for token, _ in scores[position].top] == [token for token, _ in top]
            assert scores[position].top[0][1] == pytest.approx(top[0][1], abs=0.02)


async def test_the_end_token_ends_and_is_not_told(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        (end,) = client.encode("<|im_end|>")
        steps = await client.progress("hello", 50, ignore_eos=False, logit_bias={end: 100.0})
        assert (steps[-1].finish_reason, steps[-1].tokens) == ("stop", ())
        steps = await client.progress("hello", 5, ignore_eos=True, logit_bias={end: 100.0})
        assert steps[-1].finish_reason == "length"
        assert end not in [token.id for step in steps for token in step.tokens]


def pairs(engine) -> Grammar:
    vocabulary = constraint.Vocabulary(engine.tokenizer, engine.info.vocab_size)
    return vocabulary.compile(r"start: /\{[a-z]+:[0-9]{3}\}/")


async def test_a_grammar_is_followed_and_ends_the_answer(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        client, grammar = EngineClient(engine), pairs(engine)
        for params in (
            {},
            {"temperature": 1.0, "seed": 3},
            {"top_p": 0.9, "temperature": 2.0, "seed": 1},
            {"temperature": 1.0, "seed": 5, "ignore_eos": True},
        ):
            steps = await client.progress(TEXT, 400, grammar=grammar, **params)
            tokens = [token.id for step in steps for token in step.tokens]
            text = b"".join(map(engine.tokenizer.piece, tokens)).decode()
            if steps[-1].finish_reason == "stop":
                assert re.fullmatch(r"\{[a-z]+:[0-9]{3}\}", text)
            else:
                assert len(tokens) == 400
                assert re.fullmatch(r"\{[a-z]+(:[0-9]*)?", text)


async def test_a_grammar_that_fails_ends_its_own_answer_only(open_engine, tiny) -> None:
    class Failing:
        def start(self) -> Failing:
            return self

        def mask(self) -> bytes:
            raise EngineError("bad_request", "too complex")

    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        other = asyncio.create_task(client.ask("hello", 40))
        with pytest.raises(EngineError) as caught:
            await client.ask("hello", 4, grammar=Failing())
        assert caught.value.kind == "bad_request"
        assert len(await other) == 40


@pytest.mark.parametrize(
    ("prompt", "count", "kind"),
    [
        ([], 4, "bad_request"),
        ([1, 99999], 4, "bad_request"),
        ([-1], 4, "bad_request"),
        ([1] * 100, 200, "context_length_exceeded"),
    ],
)
async def test_what_can_never_be_served(open_engine, tiny, prompt, count, kind) -> None:
    async with open_engine(tiny, context=256) as engine:
        with pytest.raises(EngineError) as caught:
            await EngineClient(engine).ask(prompt, count)
        assert caught.value.kind == kind


async def test_no_answer_wanted(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        steps = await EngineClient(engine).progress(TEXT, 0, prompt_logprobs=True)
        assert [(step.tokens, step.finish_reason) for step in steps] == [((), "length")]
        assert steps[0].prompt_logprobs is not None


async def test_close_ends_what_still_runs(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        running = await EngineClient(engine).start(TEXT, 1500)
    with pytest.raises(EngineError) as caught:
        await running
    assert caught.value.kind == "unavailable"


async def test_a_step_that_fails_takes_nobody_else_along(open_engine, tiny, capsys) -> None:
    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        expected = await client.ask(TEXT, 8)
        decode = engine._context.decode
        engine._context.decode = lambda: -3
        with pytest.raises(EngineError) as caught:
            await client.ask(TEXT, 8)
        assert caught.value.kind == "unavailable"
        engine._context.decode = decode
        assert await client.ask(TEXT, 8) == expected


async def test_an_engine_that_always_fails_gives_up(open_engine, tiny, capsys) -> None:
    kinds = []
    async with open_engine(tiny) as engine:
        engine._context.decode = lambda: -3
        for _ in range(3):
            with pytest.raises(EngineError) as caught:
                await EngineClient(engine).ask(TEXT, 8)
            kinds.append(caught.value.kind)
    assert kinds == ["unavailable", "unavailable", "crashed"]


async def test_a_pool_that_is_short_after_all(open_engine, tiny) -> None:
    """llama_decode says 1 although the books had room: cache goes, then the youngest."""
    async with open_engine(tiny, parallel=4) as engine:
        client = EngineClient(engine)
        expected = await client.ask_all(PROMPTS[:4], 16)
        decode, verdicts = engine._context.decode, [1, 0, 1, 1]
        running = engine._stepper.scheduler.running

        def short_in_company() -> int:  # alone, a sequence has nobody left who could make room
            if verdicts and len(running) > 1:
                return verdicts.pop(0) or decode()
            return decode()

        engine._context.decode = short_in_company
        assert await client.ask_all(PROMPTS[:4], 16) == expected
        assert verdicts == []


async def test_threads_change_while_running(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        expected = await client.ask(TEXT, 40)
        running = asyncio.create_task(client.ask(TEXT, 40))
        engine.set_threads(2)
        assert await running == expected


async def test_what_is_known_of_the_model(open_engine, tiny) -> None:
    async with open_engine(tiny, context=512, kv_tokens=1024, model="mine") as engine:
        info = engine.info
        assert (info.name, info.context, info.trained_context) == ("mine", 512, 2048)
        assert info.capabilities == {"chat", "completions"}
        assert (info.bos_token, info.eos_token) == ("<|endoftext|>", "<|im_end|>")
        assert info.chat_template.startswith("{% for message")
        assert engine.memory()["host"] > 1_000_000
    async with open_engine(tiny, context=4096) as engine:
        assert engine.info.context == 4096  # beyond what it was trained for: only when asked
    async with open_engine(tiny, kv_tokens=512) as engine:
        assert engine.info.context == 512


async def test_tokenizer(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        tokenizer = engine.tokenizer
        for text in ("", "hello the world", "Grüße, 世界 🎉", "a\x00b", "x" * 5000):
            tokens = tokenizer.encode(text, add_special=False, parse_special=False)
            assert b"".join(map(tokenizer.piece, tokens)).decode() == text
        (start,) = tokenizer.encode("<|im_start|>", add_special=False, parse_special=True)
        assert tokenizer.piece(start) == b""
        assert len(tokenizer.encode("<|im_start|>", add_special=False, parse_special=False)) > 1


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
async def test_embeddings_beside_answers(open_engine, tiny, pooling) -> None:
    async with open_engine(tiny, pooling=pooling, context=512) as engine:
        client = EngineClient(engine)
        assert "embeddings" in engine.info.capabilities
        inputs = [client.encode(text) for text in (TEXT, "hello", TEXT * 3, TEXT * 5)]
        running = asyncio.create_task(client.ask(TEXT, 40))
        together = await engine.embed(inputs)
        one_by_one = [(await engine.embed([tokens]))[0] for tokens in inputs]
        assert len(await running) == 40
        for left, right in zip(together, one_by_one, strict=True):
            assert len(left) == engine.info.embedding_length == 64
            assert math.fsum(x * x for x in left) == pytest.approx(1, abs=1e-5)
            assert left == pytest.approx(right, abs=1e-3)


async def test_an_embedding_model(open_engine, tiny_embedder) -> None:
    async with open_engine(tiny_embedder) as engine:
        client = EngineClient(engine)
        assert engine.info.capabilities == {"embeddings"}
        assert len(await engine.embed([client.encode("hello"), client.encode("world")])) == 2
        assert await engine.embed([]) == []
        with pytest.raises(EngineError) as caught:
            await engine.embed([[1] * 300])
        assert caught.value.kind == "context_length_exceeded"
        with pytest.raises(EngineError) as caught:
            await engine.embed([[]])
        assert caught.value.kind == "bad_request"
        with pytest.raises(EngineError) as caught:
            await client.ask("hello")
        assert caught.value.kind == "unsupported"


async def test_an_encoder(open_engine, tiny_encoder) -> None:
    async with open_engine(tiny_encoder) as engine:
        assert engine.info.capabilities == {"embeddings"}
        encode = engine.tokenizer.encode
        texts = ["hello", "hello world", "a b c d e f", "world " * 70]
        inputs = [encode(text, add_special=True, parse_special=False)[:64] for text in texts]
        assert len(inputs[-1]) == 64
        together = await engine.embed(inputs * 3)
        one_by_one = [(await engine.embed([tokens]))[0] for tokens in inputs]
        for left, right in zip(together, one_by_one * 3, strict=True):
            assert left == pytest.approx(right, abs=1e-3)
        assert one_by_one[0] != pytest.approx(one_by_one[1], abs=1e-2)
        with pytest.raises(EngineError) as caught:
            await engine.embed([inputs[-1] * 2])
        assert caught.value.kind == "context_length_exceeded"


async def test_no_embeddings_where_the_model_says_nothing_of_them(open_engine, tiny) -> None:
    async with open_engine(tiny) as engine:
        with pytest.raises(EngineError) as caught:
            await engine.embed([[1]])
        assert caught.value.kind == "unsupported"
