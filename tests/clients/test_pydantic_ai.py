"""The `pydantic-ai` package: agents over Anthropic's messages and over responses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.conftest import KEY

pydantic_ai = pytest.importorskip(
    "pydantic_ai", reason="the package `pydantic-ai` is not installed"
)


def anthropic_model(url: str) -> Any:
    models = pytest.importorskip("pydantic_ai.models.anthropic", exc_type=ImportError)
    providers = pytest.importorskip("pydantic_ai.providers.anthropic", exc_type=ImportError)
    provider = providers.AnthropicProvider(base_url=url, api_key=KEY)
    return models.AnthropicModel("scripted", provider=provider)


def responses_model(url: str) -> Any:
    openai = pytest.importorskip("openai", reason="the package `openai` is not installed")
    if "prompt_cache_diagnostics" not in openai.types.responses.Response.model_fields:
        pytest.skip("this pydantic-ai needs a newer `openai`")
    models = pytest.importorskip("pydantic_ai.models.openai", exc_type=ImportError)
    providers = pytest.importorskip("pydantic_ai.providers.openai", exc_type=ImportError)
    provider = providers.OpenAIProvider(base_url=f"{url}/v1", api_key=KEY)
    return models.OpenAIResponsesModel("scripted", provider=provider)


@pytest.mark.parametrize("model", [anthropic_model, responses_model])
async def test_an_agent_calls_its_tool(url: str, model: Any) -> None:
    agent = pydantic_ai.Agent(model(url), instructions="Be exact.")
    asked = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        asked.append(city)
        return "rainy"

    found = await agent.run("weather?")
    assert asked == ["Oslo"]
    assert found.output == "It is rainy in Oslo."


@pytest.mark.parametrize("model", [anthropic_model, responses_model])
async def test_an_agent_streams(url: str, model: Any) -> None:
    agent = pydantic_ai.Agent(model(url))
    async with agent.run_stream("hello") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == "Hello, wörld."
    assert len(pieces) > 2
