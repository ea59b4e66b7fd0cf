"""The `openai` package's responses, as agents use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import KEY
from tests.clients.scripted import ScriptedServer

openai = pytest.importorskip("openai", reason="the package `openai` is not installed")

TOOLS = [
    {
        "type": "function",
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    }
]


@pytest.fixture(scope="module")
def api(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_a_demo_model_answers_the_same_streamed_or_not(api: Any, demo: str) -> None:
    asked = {"model": demo, "input": "What is swapper?", "temperature": 0}
    whole = api.responses.create(max_output_tokens=64, **asked)
    with api.responses.stream(max_output_tokens=64, **asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert whole.output_text == final.output_text != ""
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens


@pytest.mark.parametrize("keeps", [True, False])
def test_a_conversation_with_tools(api: Any, scripted: ScriptedServer, keeps: bool) -> None:
    """By `previous_response_id`, and with all items sent again."""
    question = {"role": "user", "content": "weather?"}
    with api.responses.stream(
        model="scripted", input=[question], tools=TOOLS, store=keeps, instructions="Be exact."
    ) as stream:
        first = stream.get_final_response()
    call = next(item for item in first.output if item.type == "function_call")
    assert json.loads(call.arguments) == {"city": "Oslo"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rainy"}
    asked: dict[str, Any] = {"input": [result], "previous_response_id": first.id}
    if not keeps:
        items = [item.to_dict() for item in first.output]
        asked = {"input": [question, *items, result]}
    second = api.responses.create(model="scripted", tools=TOOLS, **asked)
    assert second.output_text == "It is rainy in Oslo."
    seen = scripted.seen[-1]["messages"]
    assert [message["role"] for message in seen] == ["user", "assistant", "tool"]
    assert seen[1]["reasoning_content"] == "The tool knows."


def test_a_schema_is_parsed(api: Any) -> None:
    import pydantic

    class Found(pydantic.BaseModel):
        answer: int

    found = api.responses.parse(model="scripted", input="hi", text_format=Found)
    assert found.output_parsed.answer == 42


def test_what_is_kept(api: Any) -> None:
    made = api.responses.create(model="scripted", input="hi")
    assert api.responses.retrieve(made.id).output_text == made.output_text
    api.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        api.responses.retrieve(made.id)


def test_an_answer_that_is_cut(api: Any) -> None:
    found = api.responses.create(model="scripted", input="hi", max_output_tokens=2)
    assert found.status == "incomplete"
    assert found.incomplete_details.reason == "max_output_tokens"


def test_errors_are_of_their_classes(api: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        api.responses.create(model="nope", input="hi")
    with pytest.raises(openai.BadRequestError) as caught:
        api.responses.create(model="scripted", input="too long", stream=True)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="background"):
        api.responses.create(model="scripted", input="hi", background=True)
