"""The package `openai-agents`: agents with tools over responses and over chat, streamed and not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pydantic
import pytest

from tests.clients.conftest import KEY
from tests.clients.scripted import ScriptedServer

agents: Any = pytest.importorskip("agents", reason="the package `openai-agents` is not installed")
openai: Any = pytest.importorskip("openai", reason="the package `openai` is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("connections_end_here"),
]
MODELS = {"responses": "OpenAIResponsesModel", "chat": "OpenAIChatCompletionsModel"}
WAYS = pytest.mark.parametrize("way", MODELS)
SHORT = {"max_tokens": 200, "temperature": 0.0}


class Person(pydantic.BaseModel):
    name: Literal["Ann", "Bo"]
    age: int = pydantic.Field(ge=0, le=99)


@pytest.fixture
async def client(url: str) -> AsyncIterator[Any]:
    agents.set_tracing_disabled(True)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def agent(client: Any, way: str, model: str = "scripted", **fields: Any) -> Any:
    made = getattr(agents, MODELS[way])(model=model, openai_client=client)
    settings = agents.ModelSettings(**{**SHORT, **fields.pop("settings", {})})
    return agents.Agent(name="A", model=made, model_settings=settings, **fields)


def weather(asked: list[str]) -> Any:
    @agents.function_tool
    def get_weather(city: Literal["Oslo", "Rome"]) -> str:
        """The weather of a city."""
        asked.append(city)
        return "rainy"

    return get_weather


@WAYS
async def test_an_agent_calls_its_tool(client: Any, way: str) -> None:
    asked: list[str] = []
    one = agent(client, way, instructions="Be exact.", tools=[weather(asked)])
    found = await agents.Runner.run(one, "weather?")
    assert asked == ["Oslo"]
    assert found.final_output == "It is rainy in Oslo."
    again = await agents.Runner.run(
        one, [*found.to_input_list(), {"role": "user", "content": "weather?"}]
    )
    assert asked == ["Oslo", "Oslo"]
    assert again.final_output == "It is rainy in Oslo."


@WAYS
async def test_an_agent_streams(client: Any, way: str) -> None:
    asked: list[str] = []
    run = agents.Runner.run_streamed(agent(client, way, tools=[weather(asked)]), "weather?")
    pieces, kinds = [], []
    async for event in run.stream_events():
        if event.type != "raw_response_event":
            kinds.append(getattr(event, "name", event.type))
        elif event.data.type == "response.output_text.delta":
            pieces.append(event.data.delta)
    assert asked == ["Oslo"]
    assert "".join(pieces) == run.final_output == "It is rainy in Oslo."
    assert len(pieces) > 2
    for name in ("reasoning_item_created", "tool_called", "tool_output", "message_output_created"):
        assert name in kinds


async def test_a_conversation_that_the_server_keeps(client: Any, scripted: ScriptedServer) -> None:
    asked: list[str] = []
    one = agent(client, "responses", tools=[weather(asked)])
    run = await agents.Runner.run(one, "weather?", auto_previous_response_id=True)
    assert run.final_output == "It is rainy in Oslo."
    seen = scripted.seen[-1]["messages"]
    assert [message["role"] for message in seen] == ["user", "assistant", "tool"]


@WAYS
async def test_a_tool_that_has_to_be_called(client: Any, demo: str, way: str) -> None:
    asked: list[str] = []
    one = agent(
        client,
        way,
        demo,
        tools=[weather(asked)],
        settings={"tool_choice": "required", "parallel_tool_calls": False},
        tool_use_behavior="stop_on_first_tool",
    )
    found = await agents.Runner.run(one, "Weather in Oslo?")
    assert len(asked) == 1
    assert found.final_output == "rainy"


@WAYS
async def test_an_output_of_a_type(client: Any, demo: str, way: str) -> None:
    one = agent(client, way, demo, output_type=Person)
    found = await agents.Runner.run(one, "Who?")
    assert isinstance(found.final_output, Person)
    assert found.context_wrapper.usage.output_tokens > 0


@WAYS
async def test_a_model_that_is_not_there(client: Any, way: str) -> None:
    with pytest.raises(openai.NotFoundError, match="nope"):
        await agents.Runner.run(agent(client, way, "nope"), "hello")
