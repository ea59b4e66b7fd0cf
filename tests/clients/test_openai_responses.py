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
    for act in (api.responses.retrieve, api.responses.delete, api.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            act(made.id)


def test_what_a_response_was_asked_with(api: Any) -> None:
    first = api.responses.create(model="scripted", input="weather?", tools=TOOLS)
    call = first.output[-1]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rainy"}
    second = api.responses.create(
        model="scripted", input=[result], previous_response_id=first.id, tools=TOOLS
    )
    items = list(api.responses.input_items.list(second.id, limit=1, order="asc"))  # four pages
    kinds = ["message", "reasoning", "function_call", "function_call_output"]
    assert [item.type for item in items] == kinds
    assert items[0].content[0].text == "weather?"
    assert [item.id for item in items[1:3]] == [item.id for item in first.output]
    assert items[3].output == "rainy"
    newest = api.responses.input_items.list(second.id)
    assert [item.id for item in newest] == [item.id for item in reversed(items)]


def test_items_by_their_ids(api: Any, scripted: ScriptedServer) -> None:
    first = api.responses.create(model="scripted", input="weather?", tools=TOOLS)
    call = first.output[-1]
    items = [{"type": "item_reference", "id": item.id} for item in first.output]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rainy"}
    question = {"role": "user", "content": "weather?"}
    second = api.responses.create(model="scripted", input=[question, *items, result], tools=TOOLS)
    assert second.output_text == "It is rainy in Oslo."
    seen = scripted.seen[-1]["messages"]
    assert [message["role"] for message in seen] == ["user", "assistant", "tool"]
    assert seen[1]["reasoning_content"] == "The tool knows."


def test_only_what_runs_in_the_background_is_cancelled_or_streamed_again(api: Any) -> None:
    made = api.responses.create(model="scripted", input="hi")
    with pytest.raises(openai.BadRequestError, match="background"):
        api.responses.cancel(made.id)
    with pytest.raises(openai.BadRequestError, match="background"):
        api.responses.retrieve(made.id, stream=True)


def test_tokens_of_an_input(api: Any, demo: str) -> None:
    asked = {"model": demo, "input": "What is swapper?", "instructions": "Be brief."}
    counted = api.responses.input_tokens.count(**asked)
    made = api.responses.create(max_output_tokens=1, **asked)
    assert counted.input_tokens == made.usage.input_tokens > 0


def test_scores_of_tokens(api: Any, demo: str) -> None:
    asked: dict[str, Any] = {
        "model": demo,
        "input": "What is swapper?",
        "max_output_tokens": 8,
        "temperature": 0,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }
    whole = api.responses.create(**asked).output[0].content[0]
    assert "".join(score.token for score in whole.logprobs) == whole.text
    assert {len(score.top_logprobs) for score in whole.logprobs} == {2}
    with api.responses.stream(**asked) as stream:
        told = [e.logprobs for e in stream if e.type == "response.output_text.delta"]
    assert [s.token for scores in told for s in scores] == [s.token for s in whole.logprobs]


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
