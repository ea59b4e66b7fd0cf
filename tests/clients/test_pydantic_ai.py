"""The `pydantic-ai` package: agents over Anthropic's messages and over responses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pydantic
import pytest

from tests.clients.conftest import KEY

pydantic_ai = pytest.importorskip(
    "pydantic_ai", reason="the package `pydantic-ai` is not installed"
)


@asynccontextmanager
async def anthropic_model(url: str, name: str = "scripted") -> AsyncIterator[Any]:
    anthropic = pytest.importorskip("anthropic", reason="the package `anthropic` is not installed")
    models = pytest.importorskip("pydantic_ai.models.anthropic", exc_type=ImportError)
    providers = pytest.importorskip("pydantic_ai.providers.anthropic", exc_type=ImportError)
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        provider = providers.AnthropicProvider(anthropic_client=client)
        yield models.AnthropicModel(name, provider=provider)


@asynccontextmanager
async def responses_model(url: str, name: str = "scripted") -> AsyncIterator[Any]:
    openai = pytest.importorskip("openai", reason="the package `openai` is not installed")
    if "prompt_cache_diagnostics" not in openai.types.responses.Response.model_fields:
        pytest.skip("this pydantic-ai needs a newer `openai`")
    models = pytest.importorskip("pydantic_ai.models.openai", exc_type=ImportError)
    providers = pytest.importorskip("pydantic_ai.providers.openai", exc_type=ImportError)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        provider = providers.OpenAIProvider(openai_client=client)
        yield models.OpenAIResponsesModel(name, provider=provider)


@pytest.fixture(params=[anthropic_model, responses_model])
async def model(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """One that plays the script."""
    async with request.param(url) as model:
        yield model


@pytest.fixture(params=[anthropic_model, responses_model])
async def own_model(url: str, demo: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """One of our own engines'."""
    async with request.param(url, demo) as model:
        yield model


async def test_an_agent_calls_its_tool(model: Any) -> None:
    agent = pydantic_ai.Agent(model, instructions="Be exact.")
    asked = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        asked.append(city)
        return "rainy"

    found = await agent.run("weather?")
    assert asked == ["Oslo"]
    assert found.output == "It is rainy in Oslo."


async def test_an_agent_streams(model: Any) -> None:
    agent = pydantic_ai.Agent(model)
    async with agent.run_stream("hello") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == "Hello, wörld."
    assert len(pieces) > 2


class Person(pydantic.BaseModel):
    """Somebody."""

    name: Literal["Ann", "Bo"]
    age: int = pydantic.Field(ge=0, le=99)


async def test_an_output_of_a_type_by_a_model_of_our_own(own_model: Any) -> None:
    agent = pydantic_ai.Agent(own_model, output_type=Person)
    found = await agent.run("Who?", model_settings={"max_tokens": 200, "temperature": 0.0})
    assert isinstance(found.output, Person)
    assert found.usage.output_tokens > 0
