"""Vercel's AI SDK for JavaScript, by its three providers: OpenAI's chat, responses, and messages."""

from __future__ import annotations

import pytest

from tests.clients import node

node.need("ai")

PROVIDERS = ("chat", "responses", "messages")


def play(scene: str, url: str, provider: str = "chat", **fields: str) -> node.Json:
    return node.play("ai.mjs", scene, url, provider=provider, **fields)


@pytest.mark.parametrize("provider", [*PROVIDERS, "completion"])
def test_a_demo_model_answers_the_same_streamed_or_not(url: str, demo: str, provider: str) -> None:
    found = play("text", url, model=demo, provider=provider, prompt="What is swapper?")
    whole, streamed = found["whole"], found["streamed"]
    assert whole["text"] == streamed["text"] != ""
    assert whole["finish"] == streamed["finish"] in ("stop", "length")
    assert streamed["parts"].count("text-delta") > 2
    for usage in (whole["usage"], streamed["usage"]):
        assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"]
        assert usage["outputTokens"] == whole["usage"]["outputTokens"] > 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_agent_calls_its_tool(url: str, provider: str) -> None:
    found = play("agent", url, provider=provider, prompt="weather?")
    for way in (found["whole"], found["streamed"]):
        assert way["steps"][0]["calls"] == [{"name": "weather", "input": {"city": "Oslo"}}]
        assert [step["finish"] for step in way["steps"]] == ["tool-calls", "stop"]
        assert way["text"] == "It is rainy in Oslo."
    assert "reasoning-delta" in found["streamed"]["parts"]
    assert found["warned"] == []  # of nothing that came and could not be sent back


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_forced_call_is_made_by_a_model_of_our_own(url: str, demo: str, provider: str) -> None:
    found = play("forced", url, model=demo, provider=provider, prompt="Weather in Oslo?")
    assert found["finish"] == "tool-calls", found
    calls = found["steps"][0]["calls"]
    assert {call["name"] for call in calls} == {"weather"}
    assert all(list(call["input"]) == ["city"] for call in calls)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_object_keeps_to_its_schema(url: str, demo: str, provider: str) -> None:
    found = play("object", url, model=demo, provider=provider, prompt="Who?")
    for person in found["people"]:
        assert person["name"] in ("Ann", "Bo")
        assert 0 <= person["age"] <= 99


def test_vectors(url: str) -> None:
    found = play("vectors", url, model="echo")
    first, second, third = found["embeddings"]
    assert first == third != second
    assert found["usage"]["tokens"] > 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_who_leaves_is_let_go(url: str, demo: str, provider: str) -> None:
    found = play("left", url, model=demo, provider=provider, prompt="What is swapper?")
    assert found["text"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_errors_say_whether_to_try_again(url: str, provider: str) -> None:
    unknown = play("text", url, model="nope", provider=provider)["error"]
    assert (unknown["name"], unknown["statusCode"]) == ("AI_APICallError", 404)
    assert unknown["isRetryable"] is False
    assert "nope" in unknown["message"]
    overflow = play("text", url, provider=provider, prompt="too long")["error"]
    assert (overflow["statusCode"], overflow["isRetryable"]) == (400, False)
    assert "100" in overflow["message"]
