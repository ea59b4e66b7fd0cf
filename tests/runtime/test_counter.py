"""The counting process: what it counts, and how it ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from swapper.config import DEMO_FOLDER
from swapper.errors import BadRequest, Unavailable
from swapper.runtime.counter import TokenCounter
from swapper.runtime.placement import LaunchSpec

CHAT = {"messages": [{"role": "user", "content": "What is swapper?"}]}
ECHO = LaunchSpec("e", "echo", options={"model": "e"})


def demo(name: str) -> LaunchSpec:
    options = {"model": name, "path": str(DEMO_FOLDER / f"{name}.gguf")}
    return LaunchSpec(name, "llamacpp", options=options)


@pytest.fixture
async def counter() -> AsyncIterator[TokenCounter]:
    counter = TokenCounter()
    yield counter
    await counter.close()


async def test_by_the_models_own_tokenizer(counter: TokenCounter) -> None:
    pytest.importorskip("llama_cpp")
    counts = await asyncio.gather(
        *(counter.count(spec, CHAT) for spec in (demo("demo-chat"), ECHO))
    )
    assert counts[0] < counts[1] == len("^<user\nWhat is swapper?>\n<assistant\n")
    again = {"messages": [*CHAT["messages"], {"role": "assistant", "content": "A server."}]}
    assert await counter.count(demo("demo-chat"), again) > counts[0]


async def test_what_is_wrong_is_told(counter: TokenCounter) -> None:
    with pytest.raises(BadRequest, match="role"):
        await counter.count(ECHO, {"messages": [{"role": "robot"}]})
    with pytest.raises(Unavailable, match="does not exist"):
        await counter.count(LaunchSpec("n", "llamacpp", options={"model": "n", "path": "/nope.gguf"}), CHAT)  # fmt: skip
    with pytest.raises(Unavailable, match="engine x"):
        await counter.count(LaunchSpec("n", "x", options={"model": "n"}), CHAT)
    assert await counter.count(ECHO, CHAT)


@pytest.mark.parametrize("program", ["import time; time.sleep(600)", "print('no JSON')", ""])
async def test_a_process_that_does_not_answer(program: str) -> None:
    counter = TokenCounter((sys.executable, "-c", program), answer_s=1.0)
    try:
        with pytest.raises(Unavailable):
            await counter.count(ECHO, CHAT)
    finally:
        await counter.close()


def scripted(answer: str) -> tuple[str, ...]:
    return sys.executable, "-c", f"import sys\nfor line in sys.stdin: print({answer}, flush=True)"


async def test_it_ends_when_nobody_asks() -> None:
    answer = "'{\"tokens\": %d}' % __import__('os').getpid()"
    counter = TokenCounter(scripted(answer), idle_s=0.01)
    try:
        first = await counter.count(ECHO, CHAT)
        await eventually(lambda: counter._process is None)
        assert await counter.count(ECHO, CHAT) != first
    finally:
        await counter.close()


async def test_whoever_leaves_takes_no_answer_of_the_next() -> None:
    answer = "'{\"tokens\": %d}' % len(line)"
    counter = TokenCounter(scripted(answer))
    try:
        small = await counter.count(ECHO, CHAT)
        asking = asyncio.ensure_future(counter.count(ECHO, {"messages": ["x" * 500]}))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await counter.count(ECHO, CHAT) == small
    finally:
        await counter.close()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing tells when a process has been let go
            await asyncio.sleep(0.005)
