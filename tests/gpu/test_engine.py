"""The whole engine on the device: the answers of a CPU, however they are scheduled; and its memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.conftest import OpenEngine
from tests.serving.engine_client import EngineClient

pytestmark = pytest.mark.gpu

PREFIX = "the quick brown fox jumps over the lazy dog and then it thinks about that for a while. "
PROMPTS = [PREFIX + "one", PREFIX + "two, and more words", "short", "x" * 200, "a", PREFIX * 4]
COUNT = 24


@pytest.fixture(scope="module")
def expected(tiny: Path) -> list[list[int]]:
    """What a CPU answers, one after the other."""
    from backends.paged.start import load

    async def run() -> list[list[int]]:
        options = {"model": "m", "path": str(tiny), "threads": 1, "parallel": 1, "devices": []}
        engine = load(options, lambda share: None)
        client = EngineClient(engine)
        answers = [await client.ask(prompt, COUNT) for prompt in PROMPTS]
        await engine.close()
        return answers

    return asyncio.run(run())


@pytest.mark.parametrize("overlaps", [False, True], ids=["in order", "overlapping"])
@pytest.mark.parametrize("options", [{}, {"batch": 13}, {"kv_tokens": 800}], ids=str)
async def test_answers_are_those_of_a_cpu(
    tiny: Path, open_engine: OpenEngine, expected: Any, options: Any, overlaps: bool
) -> None:
    async with open_engine(tiny, parallel=8, **options) as engine:
        engine._stepper.overlaps = overlaps
        for _ in range(3):  # eager, captured, replayed
            assert await EngineClient(engine).ask_all(PROMPTS, COUNT) == expected


async def test_decodes_are_replayed(gpu: torch.device, tiny: Path, open_engine: OpenEngine) -> None:
    async with open_engine(tiny, parallel=8) as engine:
        await EngineClient(engine).ask_all(PROMPTS, COUNT)
        assert engine._stepper.runner.graphs._replays


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
async def test_half_precision_answers_and_repeats_itself(
    tiny: Path, open_engine: OpenEngine, dtype: str
) -> None:
    async with open_engine(tiny, parallel=8, dtype=dtype) as engine:
        client = EngineClient(engine)
        first = await client.ask_all(PROMPTS, COUNT)
        assert all(len(answer) == COUNT for answer in first)
        await (
            engine.sleep()
        )  # so that nothing is cached, and every product is of the same height again
        await engine.wake()
        assert await client.ask_all(PROMPTS, COUNT) == first


@pytest.mark.parametrize(
    "way",
    [
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 0.8, "top_k": 20, "min_p": 0.05},
        {"temperature": 1.0, "presence_penalty": 1.0, "repetition_penalty": 1.1},
    ],
    ids=str,
)
async def test_seeded_answers_do_not_depend_on_neighbours(
    tiny: Path, open_engine: OpenEngine, way: dict[str, Any]
) -> None:
    async with open_engine(tiny, parallel=8) as engine:
        client = EngineClient(engine)
        alone = await client.ask(PROMPTS[0], COUNT, seed=7, **way)
        beside, *_ = await asyncio.gather(
            client.ask(PROMPTS[0], COUNT, seed=7, **way), client.ask_all(PROMPTS[1:], COUNT, **way)
        )
        assert beside == alone


async def test_nothing_but_reading_waits_for_the_device(
    gpu: torch.device, tiny: Path, open_engine: OpenEngine
) -> None:
    """torch raises where it would wait, but for the event that a step's tokens come with."""
    ways: list[dict[str, Any]] = [
        {},
        {"temperature": 0.7, "top_p": 0.95},
        {"temperature": 1.0, "top_k": 20, "logprobs": 3},
        {"temperature": 1.0, "frequency_penalty": 0.5, "logit_bias": {5: 1.0}},
        {"logprobs": 2, "prompt_logprobs": True},
    ]
    async with open_engine(tiny, parallel=8) as engine:
        client = EngineClient(engine)

        async def ask_all() -> list[list[int]]:
            asked = zip(PROMPTS, [*ways, *ways], strict=False)
            return await asyncio.gather(
                *(client.ask(prompt, COUNT, seed=1, **way) for prompt, way in asked)
            )

        for _ in range(2):
            expected = await ask_all()
        torch.cuda.set_sync_debug_mode("error")
        try:
            assert await ask_all() == expected
        finally:
            torch.cuda.set_sync_debug_mode("default")


async def test_asleep_it_holds_nothing_and_awake_it_answers_as_before(
    tiny: Path, open_engine: OpenEngine, expected: Any
) -> None:
    async with open_engine(tiny, parallel=8, kv_tokens=1 << 20) as engine:
        client, device = EngineClient(engine), engine._stepper.runner.device
        for _ in range(3):
            assert await client.ask_all(PROMPTS, COUNT) == expected
            before = free_bytes(device)
            await engine.sleep()
            cache = (
                (1 << 20) * 2 * 2 * 32 * 4
            )  # tokens, layers, keys and values, their width, float32
            if device.type == "cuda":
                assert free_bytes(device) - before > 0.95 * cache
            await engine.wake()
            for layer in engine._work._arena.cache.layers:
                for part in layer:
                    part.fill_(torch.nan)  # what was in the memory before must not matter
        assert await client.ask_all(PROMPTS, COUNT) == expected


async def test_it_knows_what_it_holds(
    gpu: torch.device, tiny: Path, open_engine: OpenEngine
) -> None:
    free = free_bytes(gpu)
    async with open_engine(tiny, parallel=8, kv_tokens=1 << 21) as engine:
        await EngineClient(engine).ask_all(PROMPTS, COUNT)
        taken = free - free_bytes(gpu)
        told = engine.memory()["cuda:0"] - 450 * 2**20  # this process had its context before
        assert told == pytest.approx(taken, rel=0.15)


def free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
