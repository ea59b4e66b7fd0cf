"""The `pydantic-ai` package: agents over Anthropic's messages and over responses."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import pytest

from tests.clients.conftest import KEY

pydantic_ai = pytest.importorskip(
    "pydantic_ai", reason="the package `pydantic-ai` is not installed"
)


def anthropic_model(url: str, name: str = "scripted") -> Any:
    models = pytest.importorskip("pydantic_ai.models.anthropic", exc_type=ImportError)
    providers = pytest.importorskip("pydantic_ai.providers.anthropic", exc_type=ImportError)
    provider = providers.AnthropicProvider(base_url=url, api_key=KEY)
    return models.AnthropicModel(name, provider=provider)


def responses_model(url: str, name: str = "scripted") -> Any:
    openai = pytest.importorskip("openai", reason="the package `openai` is not installed")
    if "prompt_cache_diagnostics" not in openai.types.responses.Response.model_fields:
        pytest.skip("this pydantic-ai needs a newer `openai`")
    models = pytest.importorskip("pydantic_ai.models.openai", exc_type=ImportError)
    providers = pytest.importorskip("pydantic_ai.providers.openai", exc_type=ImportError)
    provider = providers.OpenAIProvider(base_url=f"{url}/v1", api_key=KEY)
    return models.OpenAIResponsesModel(name, provider=provider)


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


class Person(pydantic.BaseModel):
    """Somebody."""

    name: Literal["Ann", "Bo"]
    age: int = pydantic.Field(ge=0, le=99)


@pytest.mark.parametrize("model", [anthropic_model, responses_model])
async def test_an_output_of_a_type_by_a_model_of_our_own(url: str, demo: str, model: Any) -> None:
    agent = pydantic_ai.Agent(model(url, demo), output_type=Person)
    found = await agent.run("Who?", model_settings={"max_tokens": 200, "temperature": 0.0})
    assert isinstance(found.output, Person)
    assert found.usage.output_tokens > 0
