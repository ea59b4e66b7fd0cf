"""Follow an answer's choices through the engine until each is finished, or somebody leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

from backends.serving.choices import Choice, Delta
from backends.serving.engine import Engine, EngineError

Emit = Callable[[Choice, Delta], Awaitable[None]]


async def follow_all(engine: Engine, choices: Sequence[Choice], emit: Emit) -> None:
    """Run every choice at once. The first failure ends all of them; so does cancelling."""
    if len(choices) == 1:
        await _follow(engine, choices[0], emit)
        return
    try:
        async with asyncio.TaskGroup() as group:
            for choice in choices:
                group.create_task(_follow(engine, choice, emit))
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


async def _follow(engine: Engine, choice: Choice, emit: Emit) -> None:
    # Closing the iterator is what gives the sequence's place back, whichever way this ends.
    async with aclosing(cast(Any, engine.generate(choice.request))) as steps:
        async for progress in steps:
            delta = choice.take(progress)
            if delta:
                await emit(choice, delta)
            if choice.finish_reason is not None:
                return
    raise EngineError("internal", "The engine ended the answer without saying why.")


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
