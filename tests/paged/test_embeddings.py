"""Embeddings by every pooling: of a text alone, whatever is computed beside it and however often."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backends.serving.engine import EngineError
from tests.paged.checkpoints import write_checkpoint
from tests.serving.engine_client import EngineClient

OpenEngine = Callable[..., Any]

in_order_and_overlapping = pytest.mark.parametrize(
    "overlaps", [False, True], ids=["in order", "overlapping"]
)

TEXT = "the quick brown fox jumps over the lazy dog and then it thinks about that for a while. "
TEXTS = [TEXT + "one", TEXT + "two, and more words", "short", "x" * 200, TEXT[:40], "a", TEXT * 2]
LAST = "pooling_mode_lasttoken"


@pytest.mark.parametrize(
    ("mode", "pooling"),
    [
        ("pooling_mode_mean_tokens", "mean"),
        (LAST, "last"),
        ("pooling_mode_cls_token", "cls"),
    ],
)
@in_order_and_overlapping
async def test_embeddings_as_the_checkpoint_pools(
    tmp_path: Path, open_engine: OpenEngine, mode: str, pooling: str, overlaps: bool
) -> None:
    path = write_checkpoint(tmp_path / "m", pooling=mode)
    async with open_engine(path, parallel=4, batch=16, overlaps=overlaps) as engine:
        assert "embeddings" in engine.info.capabilities
        inputs = [EngineClient(engine).encode(text) for text in TEXTS]
        preempting(engine._stepper.scheduler)
        vectors = await engine.embed(inputs)
        again = [(await engine.embed([tokens]))[0] for tokens in inputs]
        assert engine._stepper.scheduler.num_preempted > 0
        assert engine._stepper.counters.prompt_tokens == 2 * sum(map(len, inputs))
        hidden = [_hidden(engine, tokens) for tokens in inputs]
    for vector, other, rows in zip(vectors, again, hidden, strict=True):
        pooled = {"mean": rows.mean(0), "last": rows[-1], "cls": rows[0]}[pooling]
        pooled = torch.nn.functional.normalize(pooled, dim=0)
        torch.testing.assert_close(torch.tensor(vector), pooled, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(torch.tensor(other), pooled, atol=1e-4, rtol=1e-4)


def preempting(scheduler: Any) -> None:
    """From now on every few steps one that runs is sent back."""
    plan, chance = scheduler.schedule, random.Random(1)

    def schedule() -> Any:
        if scheduler.running and chance.random() < 0.05:
            scheduler.preempt(chance.choice(scheduler.running))
        return plan()

    scheduler.schedule = schedule


async def test_nothing_is_shared_between_scopes(tmp_path: Path, open_engine: OpenEngine) -> None:
    async with open_engine(write_checkpoint(tmp_path / "m", pooling=LAST)) as engine:
        client = EngineClient(engine)
        await engine.embed([client.encode(TEXT)], cache_scope="alice")
        cached = [
            (await client.progress(TEXT, 1, scope=scope))[0].num_cached_tokens
            for scope in ("", "bob", "alice")
        ]
    assert cached[:2] == [0, 0]
    assert cached[2] > 0


async def test_who_leaves_frees_the_place(tmp_path: Path, open_engine: OpenEngine) -> None:
    path = write_checkpoint(tmp_path / "m", pooling=LAST)
    async with open_engine(path, parallel=1, batch=8) as engine:
        client, scheduler = EngineClient(engine), engine._stepper.scheduler
        inputs = [[number, *client.encode(TEXT * 4)] for number in range(20)]
        asked = asyncio.create_task(engine.embed(inputs))
        await client.ask("a", 1)  # by then the texts are on their way
        with pytest.raises(EngineError, match="answering"):
            await engine.sleep()
        asked.cancel()
        assert len(await client.ask("b", 4)) == 4
        assert engine._stepper.counters.prompt_tokens < sum(map(len, inputs)) / 2
        assert scheduler.blocks.num_free == scheduler.blocks.num_blocks
        await engine.sleep()


async def test_what_cannot_be_embedded(tmp_path: Path, open_engine: OpenEngine) -> None:
    path = write_checkpoint(tmp_path / "m", pooling=LAST)
    async with open_engine(path, context=64) as engine:
        assert len(await engine.embed([[1] * 64])) == 1
        assert engine._stepper.counters.prompt_tokens == 64
        for kind, tokens in (("context_length_exceeded", [1] * 65), ("bad_request", [])):
            with pytest.raises(EngineError) as caught:
                await engine.embed([[1], tokens])
            assert caught.value.kind == kind
        await engine.sleep()
        with pytest.raises(EngineError, match="sleeps"):
            await engine.embed([[1]])


def _hidden(engine: Any, tokens: list[int]) -> torch.Tensor:
    """The model's hidden states of a text, computed at once."""
    from backends.paged.scheduler import Chunk
    from backends.paged.sequence import Sequence

    sequence = Sequence(0, tokens, 0)
    sequence.blocks, sequence.seat = list(range(40)), 0
    return engine._stepper.runner.run([Chunk(sequence, 0, len(tokens))])
