"""The packages `openai`, `@anthropic-ai/sdk` and `ollama` for JavaScript."""

from __future__ import annotations

import pytest

from tests.clients import node

node.need("openai")

OSLO = {"city": "Oslo"}


def play(scene: str, url: str, **fields: str) -> node.Json:
    return node.play("sdks.mjs", scene, url, **fields)


@pytest.mark.parametrize("package", ["openai", "anthropic", "ollama"])
def test_a_demo_model_answers_the_same_streamed_or_not(url: str, demo: str, package: str) -> None:
    found = play(package, url, model=demo, prompt="What is swapper?")
    assert found["whole"] == found["streamed"]
    assert found["whole"]["text"]
    assert found["whole"]["tokens"] > 0


@pytest.mark.parametrize("package", ["openai", "anthropic", "ollama"])
def test_tools_are_run(url: str, package: str) -> None:
    found = play(f"{package} tools", url, prompt="weather?")
    assert found == {"text": "It is rainy in Oslo.", "calls": [OSLO]}


def test_responses_are_kept(url: str) -> None:
    found = play("openai responses", url)
    assert found == {"text": "Hello, wörld.", "asked": "hello"}


def test_what_ollama_lists(url: str) -> None:
    found = play("ollama models", url, model="echo")
    assert "echo" in found["names"]
    assert "echo" in found["running"]
    assert {"completion", "tools"} <= set(found["capabilities"])
    assert found["vectors"] == 2


@pytest.mark.parametrize("package", ["openai", "anthropic", "ollama"])
def test_errors_have_their_status(url: str, package: str) -> None:
    unknown = play(package, url, model="nope")["error"]
    assert unknown["status"] == 404
    assert "nope" in unknown["message"]
    overflow = play(package, url, prompt="too long")["error"]
    assert overflow["status"] == 400
    assert "100" in overflow["message"]
