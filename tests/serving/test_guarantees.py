"""Forms and calls from a real engine, through OpenAI's own client."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from tests.echo.worker_process import WorkerProcess
from tests.serving.odd_schemas import KEPT, PERSON, REFUSED

openai: Any = pytest.importorskip("openai")
pytest.importorskip("llama_cpp")

MODEL = Path(__file__).parents[2] / "swapper" / "demo" / "demo-chat.gguf"
TALK = [{"role": "user", "content": "What is the weather in Oslo?"}]
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
    },
    "required": ["city", "unit", "days"],
}
TIME = {"type": "object", "properties": {"zone": {"enum": ["CET", "UTC"]}}, "required": ["zone"]}


def tool(name: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


TOOLS = [tool("weather", WEATHER), tool("time", TIME)]
SCHEMAS = {"weather": WEATHER, "time": TIME}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"model": "m", "path": str(MODEL), "threads": 1}
    with WorkerProcess(options, f"tcp:127.0.0.1:{port}", module="llamacpp") as worker:
        worker.ready()
        base = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=60) as client:
            yield client


def ask(client: Any, **fields: Any) -> Any:
    fields = {"messages": TALK, "max_tokens": 400, **fields}
    return client.chat.completions.create(model="m", **fields)


def form(schema: dict[str, Any], strict: bool = True) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": strict}}


@pytest.mark.parametrize("seed", range(8))
def test_a_schema_is_kept_at_any_temperature(client: Any, seed: int) -> None:
    answer = ask(
        client, response_format=form(PERSON, seed % 2 == 0), seed=seed, temperature=seed / 2
    )
    [choice] = answer.choices
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), PERSON)


def test_what_is_cut_says_so(client: Any) -> None:
    answer = ask(client, response_format=form(PERSON), max_tokens=4)
    assert answer.choices[0].finish_reason == "length"


def test_several_answers_at_once_each_follow_their_own(client: Any) -> None:
    answer = ask(client, response_format=form(PERSON), n=4, temperature=1.5, seed=1)
    people = [json.loads(choice.message.content) for choice in answer.choices]
    for person in people:
        jsonschema.validate(person, PERSON)
    assert len({json.dumps(person) for person in people}) > 1


@pytest.mark.parametrize("seed", range(6))
def test_a_required_call_is_made_and_valid(client: Any, seed: int) -> None:
    answer = ask(client, tools=TOOLS, tool_choice="required", seed=seed, temperature=seed / 2)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    for call in choice.message.tool_calls:
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])


def test_a_named_call_is_that_one_and_alone(client: Any) -> None:
    chosen = {"type": "function", "function": {"name": "time"}}
    answer = ask(client, tools=TOOLS, tool_choice=chosen, temperature=0)
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "time"
    jsonschema.validate(json.loads(call.function.arguments), TIME)


def test_one_call_where_calls_may_not_be_parallel(client: Any) -> None:
    for seed in range(4):
        answer = ask(
            client,
            tools=TOOLS,
            tool_choice="required",
            parallel_tool_calls=False,
            seed=seed,
            temperature=2,
        )
        assert len(answer.choices[0].message.tool_calls) == 1


def test_strict_tools_are_valid_where_none_is_forced(client: Any) -> None:
    strict = [tool("weather", WEATHER, strict=True)]
    answer = ask(client, tools=strict, temperature=0)
    [call] = answer.choices[0].message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), WEATHER)
    talk = [{"role": "user", "content": "What is swapper?"}]
    answer = ask(client, tools=strict, temperature=0, messages=talk)
    assert answer.choices[0].message.tool_calls is None
    assert "model" in answer.choices[0].message.content


def test_a_streamed_call_is_the_whole_one(client: Any) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "seed": 3, "temperature": 1}
    whole = ask(client, **fields).choices[0].message.tool_calls
    with client.chat.completions.stream(
        model="m", messages=TALK, max_tokens=400, **fields
    ) as stream:
        names = [event.type for event in stream]
        final = stream.get_final_completion().choices[0].message.tool_calls
    assert names.count("tool_calls.function.arguments.delta") > 3
    assert [(c.function.name, c.function.arguments) for c in final] == [
        (c.function.name, c.function.arguments) for c in whole
    ]


def test_a_schema_and_tools_together_give_one_or_the_other(client: Any) -> None:
    for seed in range(4):
        answer = ask(client, tools=TOOLS, response_format=form(PERSON), seed=seed, temperature=1.5)
        message = answer.choices[0].message
        if message.tool_calls:
            assert message.content is None
        else:
            jsonschema.validate(json.loads(message.content), PERSON)


def test_plain_completions_follow_too(client: Any) -> None:
    answer = client.completions.create(
        model="m", prompt="Age: ", max_tokens=50, extra_body={"guided_regex": "[0-9]{2} years"}
    )
    assert answer.choices[0].text.endswith(" years")
    assert answer.choices[0].finish_reason == "stop"


def test_a_schema_that_cannot_be_followed_is_said_before_anything_is_sent(client: Any) -> None:
    broken = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}}
    with pytest.raises(openai.BadRequestError, match="look-around") as raised:
        ask(client, response_format=form(broken), stream=True)
    assert raised.value.param == "response_format.json_schema.schema"


@pytest.mark.parametrize("name", REFUSED)
def test_odd_schemas_are_refused_before_anything_is_sent(client: Any, name: str) -> None:
    schema, _ = REFUSED[name]
    with pytest.raises(openai.BadRequestError):
        ask(client, response_format=form(schema), stream=True)


@pytest.mark.parametrize("name", KEPT)
def test_odd_schemas_are_kept_to(client: Any, name: str) -> None:
    answer = ask(client, response_format=form(KEPT[name]), seed=2, temperature=2, max_tokens=200)
    [choice] = answer.choices
    if choice.finish_reason == "stop":
        jsonschema.validate(json.loads(choice.message.content), KEPT[name])


@pytest.mark.parametrize(
    ("parameters", "is_fine"),
    [(True, True), ({}, True), ({"type": ["object", "null"]}, True), ({"type": "string"}, False)],
)
def test_arguments_are_an_object_whatever_is_asked(
    client: Any, parameters: Any, is_fine: bool
) -> None:
    tools = [tool("f", parameters, strict=True)]
    if not is_fine:
        with pytest.raises(openai.BadRequestError, match="must be object"):
            ask(client, tools=tools, tool_choice="required")
        return
    answer = ask(client, tools=tools, tool_choice="required", temperature=2, seed=5)
    for call in answer.choices[0].message.tool_calls:
        if answer.choices[0].finish_reason == "tool_calls":
            assert isinstance(json.loads(call.function.arguments), dict)


@pytest.mark.parametrize("name", ["two words", "f(x)", 'q"', "a=b", "<f>", "a\n"])
def test_a_name_that_no_notation_can_hold_is_refused(client: Any, name: str) -> None:
    with pytest.raises(openai.BadRequestError, match="may not hold"):
        ask(client, tools=[tool(name, WEATHER)])


@pytest.mark.parametrize("levels", [200, 5000, 200_000])
def test_a_schema_of_any_depth_is_answered(client: Any, levels: int) -> None:
    schema = '{"items":' * levels + "{}" + "}" * levels
    body = f'{{"model": "m", "messages": {json.dumps(TALK)}, "guided_json": {schema}}}'
    answer = httpx.post(f"{client.base_url}chat/completions", content=body, timeout=60)
    assert answer.status_code == 400
