"""Packages that speak to Ollama: `langchain-ollama`, and `litellm` by both of its routes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from tests.clients.conftest import KEY

pytestmark = pytest.mark.filterwarnings("ignore")
HEADERS = {"Authorization": f"Bearer {KEY}"}


def test_langchain(url: str, demo: str) -> None:
    langchain = pytest.importorskip("langchain_ollama", reason="langchain-ollama is not installed")
    about: dict[str, Any] = {"base_url": url, "client_kwargs": {"headers": HEADERS}}
    model = langchain.ChatOllama(model=demo, temperature=0, num_predict=32, **about)
    whole = model.invoke("What is swapper?")
    text = "".join(chunk.content for chunk in model.stream("What is swapper?"))
    assert whole.content == text != ""
    assert whole.usage_metadata["output_tokens"] > 0
    assert whole.response_metadata["done_reason"] in ("stop", "length")

    def get_weather(city: str) -> str:
        """The weather of a city."""
        return city

    caller = langchain.ChatOllama(model="scripted", reasoning=True, **about)
    called = caller.bind_tools([get_weather]).invoke("weather?")
    assert called.tool_calls[0]["args"] == {"city": "Oslo"}
    assert called.additional_kwargs["reasoning_content"] == "The tool knows."
    vectors = langchain.OllamaEmbeddings(model="echo", **about).embed_documents(["a", "b"])
    assert len(vectors) == 2
    assert vectors[0] != vectors[1]


@pytest.mark.parametrize("route", ["ollama", "ollama_chat"])
def test_litellm(url: str, route: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm: Any = pytest.importorskip("litellm", reason="litellm is not installed")
    asked: dict[str, Any] = {
        "model": f"{route}/echo",
        "messages": [{"role": "user", "content": "one two"}],
        "api_base": url,
        "api_key": KEY,
    }
    whole = litellm.completion(**asked)
    text = "".join(
        chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True)
    )
    assert "one two" in whole.choices[0].message.content
    assert text == whole.choices[0].message.content
    assert whole.usage.completion_tokens > 0
    with pytest.raises(litellm.exceptions.NotFoundError):
        litellm.completion(**{**asked, "model": f"{route}/nope"})
