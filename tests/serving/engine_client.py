"""A client of an engine, asked in its own process: no worker, no HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from backends.serving.engine import GenerateRequest, Progress, SamplingParams


class EngineClient:
    """Asks an engine and gathers the answers."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def request(self, prompt: str | list[int], count: int = 16, **more: Any) -> GenerateRequest:
        tokens = self.encode(prompt) if isinstance(prompt, str) else prompt
        scope = more.pop("scope", "")
        scores = more.pop("prompt_logprobs", False)
        sampling = SamplingParams(**{"temperature": 0.0, "ignore_eos": True} | more)
        return GenerateRequest(tokens, count, sampling, scope, scores)

    def encode(self, text: str) -> list[int]:
        return self.engine.tokenizer.encode(text, add_special=False, parse_special=True)

    async def progress(
        self, prompt: str | list[int], count: int = 16, **more: Any
    ) -> list[Progress]:
        return [step async for step in self.engine.generate(self.request(prompt, count, **more))]

    async def ask(self, prompt: str | list[int], count: int = 16, **more: Any) -> list[int]:
        steps = await self.progress(prompt, count, **more)
        return [token.id for step in steps for token in step.tokens]

    async def start(self, prompt: str, count: int) -> asyncio.Task[None]:
        """A reader that has had its first token."""
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in self.engine.generate(self.request(prompt, count)):
                begun.set()

        reader = asyncio.create_task(read())
        await begun.wait()
        return reader

    async def ask_all(self, prompts: list[str], count: int = 16, **more: Any) -> list[list[int]]:
        return await asyncio.gather(*(self.ask(prompt, count, **more) for prompt in prompts))
