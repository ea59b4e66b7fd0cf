"""The `litellm` package by its OpenAI and Anthropic routes, and by responses."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from tests.clients.conftest import KEY

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    litellm: Any = pytest.importorskip("litellm", reason="the package `litellm` is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("connections_end_here"),
]


HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("stream", [True, False])
def test_messages(url: str, stream: bool) -> None:
    found = litellm.completion(
        "anthropic/scripted", messages=HELLO, api_base=url, api_key=KEY, stream=stream
    )
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in found)
    else:
        text = found.choices[0].message.content
    assert text == "Hello, wörld."


def test_responses(url: str) -> None:
    pytest.importorskip("mcp", reason="litellm's responses need the package `mcp`")
    found = litellm.responses(
        model="openai/scripted", input="hello", api_base=f"{url}/v1", api_key=KEY
    )
    assert found.output[0].content[0].text == "Hello, wörld."


def test_a_prompt_that_is_too_long_is_known_as_that(url: str) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(
            "anthropic/scripted",
            messages=[{"role": "user", "content": "too long"}],
            api_base=url,
            api_key=KEY,
        )


@pytest.mark.parametrize("stream", [True, False])
def test_chat(url: str, demo: str, stream: bool) -> None:
    asked = {
        "model": f"openai/{demo}",
        "messages": HELLO,
        "api_base": f"{url}/v1",
        "api_key": KEY,
        "temperature": 0,
        "max_tokens": 40,
    }
    whole = litellm.completion(**asked)
    assert whole.usage.completion_tokens > 0
    if stream:
        chunks = litellm.completion(**asked, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == whole.choices[0].message.content != ""
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(
            **{**asked, "messages": [{"role": "user", "content": "word " * 20000}]}, stream=stream
        )


def test_embeddings(url: str) -> None:
    found = litellm.embedding("openai/echo", input=["a", "b"], api_base=f"{url}/v1", api_key=KEY)
    assert len(found.data) == 2
    assert found.usage.prompt_tokens > 0
