"""The engine on the CPU. Above all: an answer does not depend on how it came to be computed."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import Callable
from contextlib import aclosing
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch

from backends.serving.engine import CanSleep, EngineError
from tests.serving.engine_client import EngineClient

OpenEngine = Callable[..., Any]

in_order_and_overlapping = pytest.mark.parametrize(
    "overlaps", [False, True], ids=["in order", "overlapping"]
)

PREFIX = "the quick brown fox jumps over the lazy dog and then it thinks about that for a while. "
PROMPTS = [
    PREFIX + "one",
    PREFIX + "two, and more words than the others so that chunks end elsewhere",
    "short",
    "x" * 200,
    PREFIX[:40],
    "a",
    PREFIX * 4,
]


@pytest.fixture(scope="module")
def expected(tiny: Path) -> list[list[int]]:
    from backends.paged.start import load

    async def run() -> list[list[int]]:
        answers = []
        for prompt in PROMPTS:
            options = {"path": str(tiny), "threads": 1, "parallel": 1, "batch": 4096, "devices": []}
            engine = load(options, lambda share: None)
            answers.append(await EngineClient(engine).ask(prompt, 24))
            await engine.close()
        return answers

    return asyncio.run(run())


async def test_answers_differ(expected: list[list[int]]) -> None:
    """Else the tests below would show nothing."""
    assert len({tuple(answer) for answer in expected}) == len(expected)
    assert all(len(set(answer)) > 4 for answer in expected)


@in_order_and_overlapping
@pytest.mark.parametrize("batch", [8, 13, 64, 4096])
async def test_any_chunk_size_and_any_neighbours(
    tiny: Path, open_engine: OpenEngine, expected: Any, batch: int, overlaps: bool
) -> None:
    async with open_engine(tiny, parallel=8, batch=batch, overlaps=overlaps) as engine:
        assert await EngineClient(engine).ask_all(PROMPTS, 24) == expected


@in_order_and_overlapping
async def test_prompts_that_are_cached(
    tiny: Path, open_engine: OpenEngine, expected: Any, overlaps: bool
) -> None:
    async with open_engine(tiny, parallel=3, overlaps=overlaps) as engine:
        client = EngineClient(engine)
        for _ in range(2):
            assert await client.ask_all(PROMPTS, 24) == expected
        steps = await client.progress(PROMPTS[6], 4)
        assert steps[0].num_cached_tokens > 300


@in_order_and_overlapping
async def test_a_kv_cache_too_small_for_all(
    tiny: Path, open_engine: OpenEngine, expected: Any, overlaps: bool
) -> None:
    small = {"kv_tokens": 480, "context": 480}
    async with open_engine(tiny, parallel=7, overlaps=overlaps, **small) as engine:
        answers = await EngineClient(engine).ask_all(PROMPTS, 24)
    assert answers == expected


@in_order_and_overlapping
@pytest.mark.parametrize("seed", range(4))
async def test_preempted_at_random(
    tiny: Path, open_engine: OpenEngine, expected: Any, seed: int, overlaps: bool
) -> None:
    chance = random.Random(seed)
    async with open_engine(tiny, parallel=4, batch=32, overlaps=overlaps) as engine:
        scheduler = engine._stepper.scheduler
        plan = scheduler.schedule

        def schedule() -> Any:
            if scheduler.running and chance.random() < 0.3:
                scheduler.preempt(chance.choice(scheduler.running))
            if chance.random() < 0.2:
                scheduler.blocks.forget()
            return plan()

        scheduler.schedule = schedule
        assert await EngineClient(engine).ask_all(PROMPTS, 24) == expected
        assert scheduler.num_preempted > 10


async def test_a_step_is_launched_before_the_one_before_it_is_read(
    tiny: Path, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backends.paged.chooser import Chosen

    done: list[str] = []
    async with open_engine(tiny, overlaps=True) as engine:
        runner = engine._stepper.runner
        run, read = runner.run, Chosen.read
        runner.run = lambda chunks: (done.append("run"), run(chunks))[1]
        monkeypatch.setattr(Chosen, "read", lambda self: (done.append("read"), read(self))[1])
        await EngineClient(engine).ask("a", 4)
    assert done == ["run", "run", "read", "run", "read", "run", "read", "read"]


@in_order_and_overlapping
async def test_who_stops_in_the_middle_disturbs_nobody(
    tiny: Path, open_engine: OpenEngine, expected: Any, overlaps: bool
) -> None:
    """As a stop string does it: the reader has enough and leaves."""
    async with open_engine(tiny, parallel=3, batch=32, overlaps=overlaps) as engine:
        client = EngineClient(engine)

        async def ask(number: int, count: int) -> list[int]:
            had: list[int] = []
            async with aclosing(engine.generate(client.request(PROMPTS[number], 24))) as steps:
                async for step in steps:
                    had += [token.id for token in step.tokens]
                    if len(had) == count:
                        break
            return had

        counts = [1, 24, 9, 5, 24, 2, 24]
        answers = await asyncio.gather(*(ask(i, count) for i, count in enumerate(counts)))
        assert answers == [expected[i][:count] for i, count in enumerate(counts)]
        assert await client.ask_all(PROMPTS, 24) == expected
        engine._stepper.scheduler.check_integrity()


async def test_what_was_cancelled_brings_nothing(tiny: Path, open_engine: OpenEngine) -> None:
    from backends.paged.stepper import Answer

    async with open_engine(tiny, overlaps=True) as engine:
        await engine.close()  # so that steps are made here and not by its thread
        stepper, request = engine._stepper, EngineClient(engine).request("hello", 24)
        answers = [Answer.of(request, serial, frozenset()) for serial in range(2)]
        for answer in answers:
            stepper.submit(answer)
        assert not stepper.step()
        stepper.cancel(answers[0])
        assert {task for task, _ in stepper.step()} == {answers[1]}
        stepper.cancel(answers[1])
        assert not stepper.step()
        assert stepper.counters.answer_tokens == 1
        assert not stepper.has_work


@in_order_and_overlapping
async def test_who_ends_by_a_token_disturbs_nobody(
    tiny: Path, open_engine: OpenEngine, expected: Any, overlaps: bool
) -> None:
    """Nobody can know it a step ahead."""
    async with open_engine(tiny, parallel=4, batch=32, overlaps=overlaps) as engine:
        client = EngineClient(engine)
        ends = engine._stepper.ends = frozenset({expected[0][10], expected[3][3]})
        answers = await client.ask_all(PROMPTS, 24, ignore_eos=False)
    assert answers == [list(takewhile(lambda token: token not in ends, e)) for e in expected]


@pytest.mark.parametrize("has_graphs", [False, True])
async def test_warming_up_leaves_no_trace(
    tiny: Path, open_engine: OpenEngine, expected: Any, has_graphs: bool
) -> None:
    from backends.paged.graphs import DecodeGraphs

    sizes: list[int] = []
    async with open_engine(tiny, parallel=8, batch=64) as engine:
        runner = engine._stepper.runner
        if has_graphs:
            runner.graphs = DecodeGraphs(
                runner.decoder,
                runner.device,
                max_running=8,
                max_blocks=2048 // 16,
                new_capture=lambda: lambda step: (sizes.append(len(step())), step)[1],
            )
        for k, v in runner.cache.layers:
            k.fill_(7.0)
            v.fill_(7.0)
        engine.warm_up()
        assert all(bool((part == 7.0).all()) for layer in runner.cache.layers for part in layer)
        assert sizes == [1] * has_graphs
        assert await EngineClient(engine).ask_all(PROMPTS, 24) == expected


async def test_the_first_step_of_a_size_waits_for_no_capture(
    tiny: Path, open_engine: OpenEngine, expected: Any
) -> None:
    from backends.paged.graphs import DecodeGraphs

    sizes: list[int] = []
    async with open_engine(tiny) as engine:
        runner = engine._stepper.runner
        runner.graphs = DecodeGraphs(
            runner.decoder,
            runner.device,
            max_running=8,
            max_blocks=2048 // 16,
            new_capture=lambda: lambda step: (sizes.append(len(step())), step)[1],
        )
        for count, captured in ((2, []), (3, [1])):  # the first token of each is a prompt's
            assert await EngineClient(engine).ask(PROMPTS[0], count) == expected[0][:count]
            assert sizes == captured


async def test_more_threads_than_help_are_not_used(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny) as engine:
        engine.set_threads(2)
        assert await engine._thread.ask(torch.get_num_threads) == 1


async def test_a_warm_up_that_fails_is_told(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny) as engine:
        engine._stepper.runner.decoder = None
        with pytest.raises(TypeError):
            engine.warm_up()


@pytest.mark.parametrize("copies", [True, False])
async def test_asleep_in_between(
    tiny: Path, open_engine: OpenEngine, expected: Any, copies: bool
) -> None:
    async with open_engine(tiny, parallel=8) as engine:
        assert isinstance(engine, CanSleep)
        arena = engine._work._arena
        arena._copies = copies
        client = EngineClient(engine)
        for _ in range(3):
            assert await client.ask_all(PROMPTS, 24) == expected
            held = weakref.ref(arena.cache.layers[0][0])
            await engine.sleep()
            assert held() is None
            with pytest.raises(EngineError, match="sleeps"):
                await client.ask("a")
            await engine.wake()
            # What was in the device's memory before must not matter.
            for k, v in arena.cache.layers:
                k.fill_(torch.nan)
                v.fill_(torch.nan)
        assert await client.ask_all(PROMPTS, 24) == expected


async def test_who_cannot_wake_sleeps_on(
    tiny: Path, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine(tiny) as engine:
        client, arena = EngineClient(engine), engine._work._arena
        expected = await client.ask("a")
        await engine.sleep()

        def take() -> None:
            raise EngineError("out_of_memory", "planted")

        with monkeypatch.context() as patched:
            patched.setattr(arena, "take", take)
            with pytest.raises(EngineError, match="planted"):
                await engine.wake()
        with pytest.raises(EngineError, match="sleeps"):
            await client.ask("a")
        await engine.wake()
        assert await client.ask("a") == expected


@in_order_and_overlapping
async def test_decodes_out_of_inputs_that_stay_in_place(
    tiny: Path, open_engine: OpenEngine, expected: Any, overlaps: bool
) -> None:
    """What a graph is captured of, without the graph: rows to spare must not matter."""
    from backends.paged.graphs import DecodeGraphs

    sizes: list[int] = []

    def capture(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        sizes.append(len(step()))
        return step

    async with open_engine(tiny, parallel=7, overlaps=overlaps) as engine:
        runner = engine._stepper.runner
        runner.graphs = DecodeGraphs(
            runner.decoder,
            runner.device,
            max_running=7,
            max_blocks=2048 // 16,
            new_capture=lambda: capture,
        )
        for _ in range(2):
            assert await EngineClient(engine).ask_all(PROMPTS, 24) == expected
            await engine.sleep()
            await engine.wake()
    assert sizes.count(8) == 2


async def test_it_does_not_sleep_while_it_answers(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny) as engine:
        reader = await EngineClient(engine).start("hello", 1000)
        with pytest.raises(EngineError, match="answering"):
            await engine.sleep()
        reader.cancel()


@in_order_and_overlapping
@pytest.mark.parametrize(
    "way",
    [
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 1.0, "presence_penalty": 1.0, "repetition_penalty": 1.1},
    ],
)
async def test_seeded_answers_do_not_depend_on_neighbours(
    tiny: Path, open_engine: OpenEngine, way: dict[str, Any], overlaps: bool
) -> None:
    async with open_engine(tiny) as engine:
        one = await EngineClient(engine).ask(PROMPTS[0], 24, seed=7, **way)
    async with open_engine(tiny, parallel=8, overlaps=overlaps) as engine:
        client = EngineClient(engine)
        beside = await asyncio.gather(
            client.ask(PROMPTS[0], 24, seed=7, **way),
            client.ask(PROMPTS[0], 24, seed=8, **way),
            client.ask(PROMPTS[1], 24, seed=7, **way),
            client.ask(PROMPTS[2], 24),
            client.ask(PROMPTS[3], 24, repetition_penalty=1.3),
        )
    assert beside[0] == one
    assert beside[1] != one


async def test_who_names_no_seed_gets_one_of_his_own(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny) as engine:
        one, other = await EngineClient(engine).ask_all([PROMPTS[0]] * 2, 24, temperature=1.0)
    assert one != other


async def test_nothing_is_shared_between_scopes(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        cached = [
            (await client.progress(PREFIX, 2, scope=scope))[0].num_cached_tokens
            for scope in ("alice", "bob", "alice")
        ]
    assert cached[:2] == [0, 0]
    assert cached[2] > 0


async def test_the_end_token_ends_and_is_not_told(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny) as engine:
        client = EngineClient(engine)
        (end,) = client.encode("<|im_end|>")
        assert engine.tokenizer.ends_answer(end)
        steps = await client.progress("a", ignore_eos=False, logit_bias={end: 100.0})
        assert [(step.tokens, step.finish_reason) for step in steps] == [((), "stop")]
        assert engine._stepper.counters.answer_tokens == 0
        steps = await client.progress("a", 5, ignore_eos=True, logit_bias={end: 100.0})
        assert sum(len(step.tokens) for step in steps) == 5
        assert end not in {token.id for step in steps for token in step.tokens}
        assert steps[-1].finish_reason == "length"


class OneText:
    """A grammar that allows one text, token by token; and, as a constraint, where it stands."""

    def __init__(self, tokens: list[int], vocab_size: int, fails_at: int | None = None) -> None:
        self.tokens, self.vocab_size, self.fails_at = tokens, vocab_size, fails_at
        self.place = 0

    def start(self) -> OneText:
        return OneText(self.tokens, self.vocab_size, self.fails_at)

    def mask(self) -> bytes:
        if self.place == self.fails_at:
            raise EngineError("bad_request", "too complex")
        return (1 << self.tokens[self.place]).to_bytes((self.vocab_size + 63) // 32 * 4, "little")

    def accept(self, token: int) -> bool:
        assert token == self.tokens[self.place]
        self.place += 1
        return self.place == len(self.tokens)


@in_order_and_overlapping
async def test_answers_keep_to_their_grammars_and_no_others(
    tiny: Path, open_engine: OpenEngine, expected: Any, overlaps: bool
) -> None:
    async with open_engine(tiny, parallel=8, overlaps=overlaps) as engine:
        client, size = EngineClient(engine), engine.info.vocab_size
        text = client.encode("as it was told")
        grammar = OneText(text, size)
        bound, free, drawn = await asyncio.gather(
            client.progress("a", grammar=grammar),
            client.ask(PROMPTS[0], 24),
            client.ask("b", grammar=grammar, temperature=1.0, top_k=5),
        )
        assert [token.id for step in bound for token in step.tokens] == text == drawn
        assert bound[-1].finish_reason == "stop"
        assert free == expected[0]
        broken = client.ask("a", grammar=OneText(text, size, fails_at=3))
        results = await asyncio.gather(broken, client.ask(PROMPTS[1], 24), return_exceptions=True)
    assert isinstance(results[0], EngineError)
    assert results[0].reason == "too complex"
    assert results[1] == expected[1]


async def test_all_ways_at_once_preempted_at_random_say_the_same_overlapping(
    tiny: Path, open_engine: OpenEngine
) -> None:
    answers = []
    for overlaps in (False, True):
        chance = random.Random(3)
        async with open_engine(tiny, parallel=5, batch=24, overlaps=overlaps) as engine:
            client, scheduler = EngineClient(engine), engine._stepper.scheduler
            text = client.encode("as it was told")
            ways: list[dict[str, Any]] = [
                {"grammar": OneText(text, engine.info.vocab_size), "temperature": 1.0},
                {"repetition_penalty": 1.2, "presence_penalty": 0.5},
                {"temperature": 1.0, "seed": 3, "top_p": 0.9},
                {"logprobs": 2, "prompt_logprobs": True},
                {},
            ]
            plan = scheduler.schedule

            def schedule(scheduler: Any = scheduler, plan: Any = plan, chance: Any = chance) -> Any:
                if scheduler.running and chance.random() < 0.3:
                    scheduler.preempt(chance.choice(scheduler.running))
                return plan()

            scheduler.schedule = schedule
            asked = (client.ask(p, 20, **w) for p, w in zip(PROMPTS, ways, strict=False))
            answers.append(await asyncio.gather(*asked))
            assert scheduler.num_preempted > 5
            assert answers[-1][0] == text
    assert answers[0] == answers[1]


@in_order_and_overlapping
async def test_logprobs_of_prompt_and_answer_agree(
    tiny: Path, open_engine: OpenEngine, overlaps: bool
) -> None:
    """An answer's tokens, given back as a prompt, must be held as likely as when they were chosen."""
    async with open_engine(tiny, batch=16, overlaps=overlaps) as engine:
        client = EngineClient(engine)
        prompt = client.encode(PREFIX)
        steps = await client.progress(prompt, 12, logprobs=3)
        tokens = [token for step in steps for token in step.tokens]
        assert all(token.top[0][0] == token.id for token in tokens)
        assert all(len(token.top) == 3 for token in tokens)
        text = prompt + [token.id for token in tokens]
        (first, *_) = await client.progress(text, 1, logprobs=3, prompt_logprobs=True)
    scores = first.prompt_logprobs
    assert scores is not None
    assert scores[0] is None
    assert [score.id for score in scores[1:]] == text[1:]
    for score, token in zip(scores[len(prompt) :], tokens, strict=True):
        assert score.logprob == pytest.approx(token.logprob, abs=1e-4)


@in_order_and_overlapping
async def test_who_leaves_frees_the_place(
    tiny: Path, open_engine: OpenEngine, overlaps: bool
) -> None:
    async with open_engine(tiny, parallel=1, overlaps=overlaps) as engine:
        client = EngineClient(engine)
        reader = await client.start("hello", 1900)
        reader.cancel()
        assert len(await client.ask("next", 4)) == 4
        assert engine._stepper.counters.answer_tokens < 1900
        blocks = engine._stepper.scheduler.blocks
        assert blocks.num_free == blocks.num_blocks


async def test_what_cannot_be_served(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny, context=64) as engine:
        client = EngineClient(engine)
        assert len(await client.ask([1] * 60, 4)) == 4
        with pytest.raises(EngineError, match=r"70 tokens; the context is 64") as caught:
            await client.ask([1] * 60, 10)
        assert caught.value.kind == "context_length_exceeded"
        for prompt in ([], [-1], [engine.info.vocab_size]):
            with pytest.raises(EngineError) as caught:
                await client.ask(prompt, 1)
            assert caught.value.kind == "bad_request"
        with pytest.raises(EngineError, match="makes no embeddings"):
            await engine.embed([[1]])


@in_order_and_overlapping
async def test_a_step_that_fails_ends_what_is_in_flight_and_no_more(
    tiny: Path, open_engine: OpenEngine, capsys: Any, overlaps: bool
) -> None:
    async with open_engine(tiny, overlaps=overlaps) as engine:
        client, runner = EngineClient(engine), engine._stepper.runner
        expected = await client.ask(PREFIX)
        run = runner.run

        def fail(chunks: Any) -> Any:
            """It leaves in the cache what nobody may use."""
            for k, v in runner.cache.layers:
                k.fill_(torch.nan)
                v.fill_(torch.nan)
            runner.run = run
            raise RuntimeError("planted")

        for _ in range(4):  # never three in a row
            runner.run = fail
            with pytest.raises(EngineError) as caught:
                await client.ask(PREFIX)
            assert caught.value.kind == "unavailable"
            assert await client.ask(PREFIX) == expected
    assert "planted" in capsys.readouterr().err


async def test_what_was_read_is_told_though_the_next_choice_fails(
    tiny: Path, open_engine: OpenEngine, expected: Any, capsys: Any
) -> None:
    async with open_engine(tiny, overlaps=True) as engine:
        chooser = engine._stepper.chooser
        tokens: list[int] = []
        choose = chooser.choose

        def fail(*given: Any) -> Any:
            chooser.choose = choose
            raise RuntimeError("planted")

        async def ask() -> None:
            async for step in engine.generate(EngineClient(engine).request(PROMPTS[0], 24)):
                tokens.extend(token.id for token in step.tokens)
                chooser.choose = fail

        with pytest.raises(EngineError, match="can be sent again"):
            await ask()
    assert tokens == expected[0][: len(tokens)]
    assert len(tokens) > 1
    assert "planted" in capsys.readouterr().err


async def test_steps_that_keep_failing_end_the_engine(
    tiny: Path, open_engine: OpenEngine, capsys: Any
) -> None:
    async with open_engine(tiny) as engine:
        client, runner = EngineClient(engine), engine._stepper.runner

        def fail(chunks: Any) -> Any:
            raise RuntimeError("planted")

        runner.run = fail
        kinds = []
        for _ in range(3):
            with pytest.raises(EngineError) as caught:
                await client.ask("a")
            kinds.append(caught.value.kind)
    assert kinds == ["unavailable", "unavailable", "crashed"]


ILLEGAL = "CUDA error: an illegal memory access was encountered"


async def test_on_a_device_the_first_failure_is_the_last(
    tiny: Path, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """It shows only when the device is waited for."""
    from backends.paged.device import Arriving

    async with open_engine(tiny, overlaps=True) as engine:

        def fail(self: Any) -> Any:
            engine._stepper.runner.device = torch.device("cuda:0")
            raise torch.AcceleratorError(f"{ILLEGAL}\nCompile with `TORCH_USE_CUDA_DSA`")

        monkeypatch.setattr(Arriving, "wait", fail)
        with pytest.raises(EngineError) as caught:
            await EngineClient(engine).ask("a")
    assert caught.value.kind == "crashed"
    assert caught.value.reason == f"The model cannot compute any more: {ILLEGAL}"
    assert "TORCH_USE_CUDA_DSA" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["sleep", "wake"])
async def test_who_can_neither_sleep_nor_wake_is_of_no_more_use(
    tiny: Path, open_engine: OpenEngine, capsys: Any, way: str
) -> None:
    async with open_engine(tiny) as engine:
        if way == "wake":
            await engine.sleep()

        def fail() -> None:
            raise torch.AcceleratorError(ILLEGAL)

        engine._work._arena._synchronize = fail
        with pytest.raises(EngineError, match=ILLEGAL) as caught:
            await getattr(engine, way)()
        assert caught.value.kind == "crashed"
        del engine._work._arena._synchronize
    assert ILLEGAL in capsys.readouterr().err


async def test_closing_ends_what_is_in_flight(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny) as engine:
        reader = await EngineClient(engine).start("hello", 1900)
    with pytest.raises(EngineError, match="unloaded"):
        await reader


async def test_metrics_carry_vllms_names(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny) as engine:
        await EngineClient(engine).ask_all(PROMPTS, 8)
        text = engine.metrics()
    assert 'vllm:generation_tokens_total{model_name="tiny",engine="0"} 56\n' in text
    assert 'finished_reason="length"} 7\n' in text
    assert 'vllm:time_to_first_token_seconds_count{model_name="tiny",engine="0"} 7\n' in text
    assert (
        'vllm:e2e_request_latency_seconds_bucket{model_name="tiny",engine="0",le="+Inf"} 7' in text
    )


async def test_a_prompt_is_counted_once(tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny, batch=16) as engine:
        client, scheduler = EngineClient(engine), engine._stepper.scheduler
        num_prompt = len(client.encode(PREFIX))
        await client.ask(PREFIX, 4)
        plan = scheduler.schedule

        def schedule() -> Any:
            if scheduler.running and scheduler.num_preempted < 2:
                scheduler.preempt(scheduler.running[0])
            return plan()

        scheduler.schedule = schedule
        steps = await client.progress(PREFIX, 4)
        assert scheduler.num_preempted == 2
        with pytest.raises(EngineError):
            await client.ask([])
        text = engine.metrics()
    counted = {"prompt_tokens": 2 * num_prompt, "prefix_cache_queries": 2 * num_prompt}
    counted |= {"prefix_cache_hits": steps[0].num_cached_tokens, "generation_tokens": 8}
    for name, value in counted.items():
        assert f'vllm:{name}_total{{model_name="tiny",engine="0"}} {value}\n' in text
    assert steps[0].num_cached_tokens > 0
