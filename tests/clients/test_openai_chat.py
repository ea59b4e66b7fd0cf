"""The `openai` package's chats, completions and embeddings, asked of both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import KEY

openai: Any = pytest.importorskip("openai", reason="the package `openai` is not installed")

HELLO = [{"role": "user", "content": "What is swapper?"}]


@pytest.fixture(scope="module")
def api(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def chat(api: Any, model: str, **fields: Any) -> Any:
    """The one choice of an answer, and what it used."""
    asked = {"messages": HELLO, "temperature": 0, "max_tokens": 100, **fields}
    answer = api.chat.completions.create(model=model, **asked)
    [choice] = answer.choices
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    return choice, answer.usage


def streamed(api: Any, model: str, **fields: Any) -> tuple[str, str, Any]:
    """Text, reason and usage of a stream."""
    asked = {"messages": HELLO, "temperature": 0, "max_tokens": 100, **fields}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(api.chat.completions.create(model=model, **asked, **options))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    [reason] = [choice.finish_reason for choice in choices if choice.finish_reason]
    text = "".join(choice.delta.content or "" for choice in choices)
    return text, reason, chunks[-1].usage


def test_stop_strings(api: Any, demo: str) -> None:
    whole = chat(api, demo)[0].message.content
    word = whole.split()[3]
    stopped, usage = chat(api, demo, stop=["never said", word])
    assert stopped.message.content == whole[: whole.index(word)]
    assert stopped.finish_reason == "stop"
    assert streamed(api, demo, stop=[word]) == (stopped.message.content, "stop", usage)


def test_no_end_before_the_least_tokens(api: Any, demo: str) -> None:
    ended, usage = chat(api, demo, max_tokens=200)
    assert ended.finish_reason == "stop"
    least = usage.completion_tokens + 20
    longer, used = chat(api, demo, max_tokens=200, extra_body={"min_tokens": least})
    assert longer.message.content.startswith(ended.message.content)
    assert used.completion_tokens >= least
    word = ended.message.content.split()[1]
    past, _ = chat(api, demo, stop=[word], extra_body={"min_tokens": usage.completion_tokens})
    assert word in past.message.content
    schema = {"type": "array", "items": {"enum": [1]}, "maxItems": 30}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    fields = {"max_tokens": 200, "response_format": form}
    listed, used = chat(api, demo, **fields, extra_body={"min_tokens": 20})
    assert used.completion_tokens >= 20
    assert set(json.loads(listed.message.content)) == {1}
    with pytest.raises(openai.BadRequestError, match="min_tokens must be at most max_tokens"):
        chat(api, demo, max_tokens=8, extra_body={"min_tokens": 9})
    [found] = api.completions.create(
        model=demo, prompt="Swapper", max_tokens=30, extra_body={"min_tokens": 30}
    ).choices
    assert found.finish_reason == "length"
