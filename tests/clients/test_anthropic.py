"""The `anthropic` package, as agents use it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import KEY
from tests.clients.scripted import ScriptedServer

anthropic = pytest.importorskip("anthropic", reason="the package `anthropic` is not installed")

HELLO = [{"role": "user", "content": "What is swapper?"}]
TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather of a city",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]


@pytest.fixture(scope="module")
def api(url: str) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


def test_a_demo_model_answers_the_same_streamed_or_not(api: Any, demo: str) -> None:
    asked: dict[str, Any] = {
        "model": f"{demo}:precise",
        "max_tokens": 64,
        "system": "You are a help.",
        "messages": HELLO,
    }
    whole = api.messages.create(**asked)
    with api.messages.stream(**asked) as stream:
        begun = next(event.message.usage for event in stream if event.type == "message_start")
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert whole.content[0].text == text == final.content[0].text != ""
    assert whole.model == f"{demo}:precise"
    assert whole.stop_reason == final.stop_reason in ("end_turn", "max_tokens")
    used = whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    counted = api.messages.count_tokens(
        model=demo, system="You are a help.", messages=HELLO
    ).input_tokens
    assert counted == used == begun.input_tokens + begun.cache_read_input_tokens
    assert whole.usage.output_tokens == final.usage.output_tokens > 0


def test_an_answer_that_the_client_has_begun(api: Any, demo: str) -> None:
    asked = {"model": f"{demo}:precise", "max_tokens": 64}
    whole = api.messages.create(messages=HELLO, **asked).content[0].text
    begun = whole[: whole.index(" ", len(whole) // 2)]
    talk = [*HELLO, {"role": "assistant", "content": begun}]
    with api.messages.stream(messages=talk, **asked) as stream:
        rest = "".join(stream.text_stream)
    assert begun + rest == whole
    assert rest == api.messages.create(messages=talk, **asked).content[0].text
    counted = api.messages.count_tokens(model=demo, messages=talk).input_tokens
    used = stream.get_final_message().usage
    assert counted == used.input_tokens + used.cache_read_input_tokens


def test_a_conversation_with_tools(api: Any, scripted: ScriptedServer) -> None:
    """As Claude Code holds it: streamed, with betas, cached system blocks and thinking that comes back."""
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "weather?"}]}]
    asked: dict[str, Any] = {
        "model": "local-claude",
        "max_tokens": 32000,
        "tools": TOOLS,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=abc;"},
            {"type": "text", "text": "Be exact.", "cache_control": {"type": "ephemeral"}},
        ],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": "u"},
        "betas": ["context-management-2025-06-27", "never-heard-of-2026-01-01"],
    }
    with api.beta.messages.stream(messages=messages, **asked) as stream:
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    assert [block.type for block in first.content] == ["thinking", "tool_use"]
    assert first.content[1].input == {"city": "Oslo"}
    assert first.usage.input_tokens == 12
    messages += [
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": first.content[1].id,
                    "content": [{"type": "text", "text": "rainy"}],
                }
            ],
        },
    ]
    with api.beta.messages.stream(messages=messages, **asked) as stream:
        second = stream.get_final_message()
    assert second.content[0].text == "It is rainy in Oslo."
    assert second.stop_reason == "end_turn"
    seen = scripted.seen[-1]["messages"]
    assert seen[0] == {"role": "system", "content": "Be exact."}
    assert seen[2]["tool_calls"][0]["id"] == seen[3]["tool_call_id"] == "call_1"
    assert seen[2]["reasoning_content"] == "The tool knows."


def test_a_schema(api: Any) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    form = {"format": {"type": "json_schema", "schema": schema}}
    found = api.messages.create(model="scripted", max_tokens=99, messages=HELLO, output_config=form)
    assert found.content[0].text == '{"answer": 42}'


def test_errors_are_of_their_classes(api: Any, url: str) -> None:
    asked: dict[str, Any] = {"max_tokens": 9, "messages": HELLO}
    with pytest.raises(anthropic.NotFoundError):
        api.messages.create(model="nope", **asked)
    with pytest.raises(anthropic.NotFoundError), api.messages.stream(model="nope", **asked):
        pass
    messages = [{"role": "user", "content": "too long"}]
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 200 tokens > 100"):
        api.messages.create(model="scripted", max_tokens=9, messages=messages)
    with pytest.raises(anthropic.BadRequestError) as caught:
        api.messages.create(model="scripted", max_tokens=0, messages=HELLO)
    assert caught.value.request_id
    with pytest.raises(anthropic.InternalServerError):  # 501: it does not say
        api.messages.count_tokens(model="scripted", messages=HELLO)
    with (
        anthropic.Anthropic(base_url=url, api_key="wrong", max_retries=0) as other,
        pytest.raises(anthropic.AuthenticationError),
    ):
        other.messages.create(model="scripted", **asked)


def test_models(api: Any) -> None:
    assert {"scripted", "echo"} <= {model.id for model in api.models.list()}
    assert api.models.retrieve("scripted").id == "scripted"


@pytest.mark.parametrize("stream", [True, False])
def test_the_sequence_that_stopped_it_is_told(api: Any, stream: bool) -> None:
    """By an engine of our own, which says which one it was."""
    asked: dict[str, Any] = {
        "model": "echo",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "one two three"}],
        "stop_sequences": ["four", " three"],
    }
    if stream:
        with api.messages.stream(**asked) as events:
            found = events.get_final_message()
    else:
        found = api.messages.create(**asked)
    assert found.content[0].text == "one two"
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", " three")


@pytest.mark.parametrize("forced", [True, False])
def test_tools_with_a_model_of_our_own(api: Any, demo: str, forced: bool) -> None:
    """It was never taught to call any; what went before is shown to it all the same."""
    history: list[Any] = [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Oslo"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "rain"}]},
    ]  # fmt: skip
    choice = {"type": "tool", "name": "get_weather"} if forced else {"type": "auto"}
    with api.messages.stream(
        model=demo, max_tokens=64, tools=TOOLS, tool_choice=choice, messages=history
    ) as stream:
        found = stream.get_final_message()
    assert found.usage.output_tokens > 0
    if forced:
        assert [block.type for block in found.content] == ["tool_use"]
        assert found.content[0].name == "get_weather"


def test_a_prompt_too_long_for_a_model_of_our_own(api: Any, demo: str) -> None:
    """In the words out of which Claude Code reads both numbers."""
    messages = [{"role": "user", "content": "word " * 20000}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        api.messages.create(model=demo, max_tokens=32000, messages=messages, timeout=60)
    words = r"prompt is too long[^0-9]*(\d+)\s*tokens?\s*>\s*(\d+)"
    found = re.search(words, caught.value.message, re.IGNORECASE)
    assert found is not None
    assert int(found[1]) > int(found[2])
    counted = api.messages.count_tokens(model=demo, messages=messages)
    assert counted.input_tokens == int(found[1])


def test_more_tokens_than_are_left_are_no_error(api: Any, demo: str) -> None:
    found = api.messages.create(
        model=demo, max_tokens=32000, messages=HELLO, stop_sequences=["."], timeout=60
    )
    assert found.stop_reason in ("end_turn", "stop_sequence", "max_tokens")
