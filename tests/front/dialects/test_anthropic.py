"""Anthropic's messages: requests, answers and streams as values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swapper.errors import BadRequest
from swapper.front.dialects.anthropic.messages import Messages
from swapper.front.refusal import Refusal
from tests.front.dialects.streams import ASKED, call, delta, events, told, usage

Json = dict[str, Any]
HELLO = [{"role": "user", "content": "hi"}]


def read(**fields: Any) -> Any:
    body = {"model": "m", "max_tokens": 9, "messages": HELLO, **fields}
    return Messages().read(json.dumps(body).encode(), ASKED)


def body(**fields: Any) -> Json:
    return read(**fields).body


def messages(*given: Json, **fields: Any) -> list[Json]:
    return body(messages=list(given), **fields)["messages"]


def user(*blocks: Json) -> Json:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


# ---------------------------------------------------------------- requests


def test_plain_fields() -> None:
    assert body(
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop_sequences=["X"],
        stream=True,
        metadata={"user_id": "u"},
        context_management={"edits": []},
        service_tier="auto",
    ) == {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "stop": ["X"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_null_is_absent() -> None:
    assert body(temperature=None, tools=None, system=None, stop_sequences=None) == body()


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("be kind", "be kind"),
        ([text("a"), {**text("b"), "cache_control": {"type": "ephemeral"}}], "a\n\nb"),
        ([text("x-anthropic-billing-header: cc_version=1; cch=5;"), text("b")], "b"),
    ],
)
def test_system(system: object, expected: str) -> None:
    assert messages(*HELLO, system=system)[0] == {"role": "system", "content": expected}


def test_system_messages_among_the_others() -> None:
    first = {"role": "system", "content": "more"}
    assert messages(first, *HELLO, system="be kind")[0]["content"] == "be kind\n\nmore"
    later = messages(*HELLO, first, system="be kind")
    assert later[1:] == [{"role": "user", "content": "hi\n\nmore"}]


def test_a_turn_with_tools() -> None:
    found = messages(
        user(text("weather?")),
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                text("I look."),
                {"type": "tool_use", "id": "t1", "name": "get", "input": {"q": "Oslo"}},
                {"type": "tool_use", "id": "t2", "name": "get", "input": {}},
            ],
        },
        user(
            {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
            {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": [text("no")]},
            text("and?"),
        ),
    )
    assert found == [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "get", "arguments": '{"q":"Oslo"}'}},
                {"id": "t2", "type": "function", "function": {"name": "get", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "rain"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no"},
        {"role": "user", "content": "and?"},
    ]  # fmt: skip


def test_a_result_without_words_needs_no_user() -> None:
    found = messages(user({"type": "tool_result", "tool_use_id": "t"}))
    assert found == [{"role": "tool", "tool_call_id": "t", "content": ""}]


def test_pictures_are_addresses_and_stay_in_their_place() -> None:
    picture = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    found = messages(user(text("see"), {"type": "image", "source": picture}, text("this")))
    assert found[0]["content"] == [
        text("see"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        text("this"),
    ]
    shown = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}  # fmt: skip
    found = messages(user(shown))
    assert found[1]["content"] == [{"type": "image_url", "image_url": {"url": "http://x"}}]


def test_documents_of_text() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "words"}
    found = messages(user({"type": "document", "title": "T", "source": source}, text("sum up")))
    assert found[0]["content"] == "T\n\nwords\n\nsum up"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "get", "disable_parallel_tool_use": True},
            {
                "tool_choice": {"type": "function", "function": {"name": "get"}},
                "parallel_tool_calls": False,
            },
        ),
    ],
)
def test_tool_choice(choice: Json, expected: Json) -> None:
    tools = [{"name": "get", "description": "d", "input_schema": {"type": "object"}}]
    found = body(tools=tools, tool_choice=choice)
    assert expected.items() <= found.items()
    assert found["tools"] == [
        {
            "type": "function",
            "function": {"name": "get", "description": "d", "parameters": {"type": "object"}},
        }
    ]


def test_thinking_effort_and_form() -> None:
    assert body(thinking={"type": "disabled"})["chat_template_kwargs"] == {"enable_thinking": False}
    assert body(thinking={"type": "enabled"})["chat_template_kwargs"] == {"enable_thinking": True}
    assert "chat_template_kwargs" not in body(thinking={"type": "adaptive"})
    form = {"type": "json_schema", "schema": {"type": "object"}}
    found = body(output_config={"effort": "max", "format": form})
    assert found["reasoning_effort"] == "high"
    assert found["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": None}, "max_tokens is required"),
        ({"max_tokens": 0}, "at least 1"),
        ({"max_tokens": "9"}, "max_tokens: Expected"),
        ({"messages": []}, "at least one message"),
        ({"messages": "hi"}, "messages: Expected"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [user({"type": "container_upload"})]}, "container_upload"),
        ({"messages": [user({"type": "text"})]}, "messages.0.content.0.text"),
        ({"messages": [user({"type": "image", "source": {"type": "file"}})]}, "base64 and url"),
        ({"messages": [user({"type": "document", "source": {"type": "base64"}})]}, "plain text"),
        ({"messages": [user({"type": "tool_result"})]}, "tool_use_id"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "xml"}}}, "json_schema"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
    ],
)
def test_what_is_refused(fields: Json, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        read(**fields)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 90_000, b'{"messages":[]}'])
def test_what_is_no_request(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        Messages().read(raw, ASKED)


def test_an_answer_that_the_client_has_begun() -> None:
    found = body(messages=[*HELLO, {"role": "assistant", "content": "{"}])
    assert found["continue_final_message"] is True
    assert found["add_generation_prompt"] is False
    assert "continue_final_message" not in body()


# ---------------------------------------------------------------- whole answers


def whole(finish: str = "stop", choice: Json | None = None, **message: Any) -> Any:
    given = {"index": 0, "message": message, "finish_reason": finish, **(choice or {})}
    answer = {"choices": [given], "usage": usage()["usage"]}
    return read(stop_sequences=["END"]).whole(answer)


def test_whole_answer() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"a":1}'}}]
    found = whole("tool_calls", content="look", reasoning_content="hm", tool_calls=calls)
    assert found == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "swapper"},
            {"type": "text", "text": "look"},
            {"type": "tool_use", "id": "c1", "name": "get", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 8,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
        },
    }


def test_arguments_that_are_no_object() -> None:
    calls = [{"id": "c", "function": {"name": "get", "arguments": '{"a": '}}]
    assert whole(tool_calls=calls)["content"][0]["input"] == {"INVALID_JSON": '{"a": '}


@pytest.mark.parametrize(
    ("finish", "choice", "expected"),
    [
        ("stop", {}, ("end_turn", None)),
        ("length", {}, ("max_tokens", None)),
        ("content_filter", {}, ("refusal", None)),
        ("stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ("stop", {"matched_stop": "END"}, ("stop_sequence", "END")),
        ("stop", {"stop_reason": 128009}, ("end_turn", None)),
        ("stop", {"stop_reason": "</s>"}, ("end_turn", None)),
    ],
)
def test_why_it_ended(finish: str, choice: Json, expected: tuple[str, str | None]) -> None:
    found = whole(finish, choice, content="x")
    assert (found["stop_reason"], found["stop_sequence"]) == expected


# ---------------------------------------------------------------- streams

CHUNKS = (
    delta(role="assistant", content=""),
    delta(reasoning_content="h"),
    delta(reasoning_content="m"),
    delta(content="I "),
    delta(content="look."),
    delta(tool_calls=[call(0, "c1", "get", "")]),
    delta(tool_calls=[call(0, arguments='{"a"')]),
    delta(tool_calls=[call(0, arguments=":1}")]),
    delta(tool_calls=[call(1, "c2", "set", "{}")]),
    delta("tool_calls"),
    usage(),
)


def test_events_in_their_order() -> None:
    found = told(read(stream=True), *CHUNKS)
    kinds = [e["type"] + (f" {e['index']}" if "index" in e else "") for e in found]
    assert kinds == [
        "message_start",
        "content_block_start 0", "content_block_delta 0", "content_block_delta 0",
        "content_block_delta 0", "content_block_stop 0",
        "content_block_start 1", "content_block_delta 1", "content_block_delta 1", "content_block_stop 1",
        "content_block_start 2", "content_block_delta 2", "content_block_delta 2", "content_block_stop 2",
        "content_block_start 3", "content_block_delta 3", "content_block_stop 3",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert found[0]["message"]["usage"]["input_tokens"] == 0
    assert found[4]["delta"]["type"] == "signature_delta"  # else clients drop the thoughts
    assert found[4]["delta"]["signature"]
    assert found[10]["content_block"] == {
        "type": "tool_use",
        "id": "c1",
        "name": "get",
        "input": {},
    }
    assert found[11]["delta"] == {"type": "input_json_delta", "partial_json": '{"a"'}
    assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert found[-2]["usage"]["input_tokens"] == 8


def test_a_prompt_is_counted_at_the_start_where_the_engine_tells_it() -> None:
    first = {**CHUNKS[0], "usage": None, "timings": {"cache_n": 3, "prompt_n": 9}}
    started = told(read(stream=True), first, *CHUNKS[1:])[0]["message"]["usage"]
    assert (started["input_tokens"], started["cache_read_input_tokens"]) == (9, 3)
    assert started["output_tokens"] == 0
    for junk in ({"cache_n": None}, {"cache_n": "3", "prompt_n": 9}):
        found = told(read(stream=True), {**CHUNKS[0], "timings": junk})
        assert found[0]["message"]["usage"]["input_tokens"] == 0


def test_hidden_thinking_stays_hidden() -> None:
    found = told(read(stream=True, thinking={"type": "disabled"}), *CHUNKS)
    assert not [e for e in found if "thinking" in str(e)]


def test_an_empty_answer_is_one_too() -> None:
    found = told(read(stream=True), delta("stop"))
    assert [e["type"] for e in found] == ["message_start", "message_delta", "message_stop"]


def test_a_stream_says_which_sequence_ended_it() -> None:
    last = delta("stop")
    last["choices"][0]["stop_reason"] = "END"
    found = told(read(stream=True, stop_sequences=["END"]), delta(content="a"), last)
    assert found[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_other_choices_are_not_mixed_in() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": None}]}
    found = told(read(stream=True), delta(content="yes"), other, delta("stop"))
    assert [e["delta"]["text"] for e in found if "text" in e.get("delta", ())] == ["yes"]


def test_mixed_pieces_are_no_answer() -> None:
    translation = read(stream=True)
    first, second = call(0, "a", "f", "{"), call(1, "b", "g", "{")
    translation.chunk(delta(tool_calls=[first, second]))
    with pytest.raises(ValueError, match="mixed"):
        translation.chunk(delta(tool_calls=[call(0, arguments="}")]))


def test_errors() -> None:
    refusal = Refusal(503, "full", retry_after_s=3)
    (found,) = events(read(stream=True).broken(refusal, "r-1"))
    assert found == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "full"},
        "request_id": "r-1",
    }
    assert Messages().refused(refusal, "r-1") == found
