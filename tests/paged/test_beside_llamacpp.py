"""The demo model by both engines: the same weights, the same answers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.serving.chat import ChatTemplate
from backends.serving.engine import GenerateRequest, SamplingParams

DEMO = Path(__file__).parents[2] / "swapper" / "demo"
ANSWER = 48
CLOSE = 1e-2  # logits that near may change places by how their sums were rounded
SUBJECTS = ["swapper", "a model", "the GGUF file", "safetensors", "a worker", "memory", "the GPU",
            "an API key", "the demo model", "a prompt"]  # fmt: skip
QUESTIONS = [
    "What is {}?",
    "Tell me about {}.",
    "How do I use {}?",
    "Why would I need {}?",
    "Write one sentence with {} in it.",
]
PROMPTS = [question.format(subject) for question in QUESTIONS for subject in SUBJECTS]


async def answers(engine: Any) -> list[list[tuple[int, float]]]:
    """Of every prompt, asked one after the other: tokens, each with the distance to the second best."""
    template = ChatTemplate(engine.info)
    found = []
    for question in PROMPTS:
        text = template.render([{"role": "user", "content": question}], None, {})
        prompt = engine.tokenizer.encode(text, add_special=True, parse_special=True)
        request = GenerateRequest(prompt, ANSWER, SamplingParams(temperature=0.0, logprobs=2))
        tokens = [token async for step in engine.generate(request) for token in step.tokens]
        found.append([(token.id, token.top[0][1] - token.top[1][1]) for token in tokens])
    return found


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama.cpp is not installed"
)
async def test_the_same_greedy_answers(open_engine: Callable[..., Any]) -> None:
    from backends.llamacpp.start import load

    async with open_engine(DEMO / "demo-chat", dtype="float32", parallel=1) as engine:
        ours = await answers(engine)
    options = {"path": str(DEMO / "demo-chat.gguf"), "threads": 1, "parallel": 1,
               "flash_attention": "off", "gpu_layers": 0}  # fmt: skip
    other = load(options, lambda share: None)
    try:
        theirs = await answers(other)
    finally:
        await other.close()
    assert len(PROMPTS) == 50
    wrong = []
    for question, mine, its in zip(PROMPTS, ours, theirs, strict=True):
        for (token, gap), (expected, _) in zip(mine, its, strict=False):
            if token != expected:
                if gap > CLOSE:
                    wrong.append((question, token, expected, gap))
                break
        else:
            if len(mine) != len(its):
                wrong.append((question, len(mine), len(its), 0.0))
    assert not wrong, json.dumps(wrong)
    same = sum([t for t, _ in a] == [t for t, _ in b] for a, b in zip(ours, theirs, strict=True))
    assert same >= 45
