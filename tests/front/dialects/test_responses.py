"""OpenAI's responses: requests, answers and streams as values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Asked
from swapper.front.dialects.responses.responses import Responses
from swapper.front.dialects.responses.store import Store
from swapper.front.refusal import NotFound, Refusal
from tests.front.dialects.streams import ASKED, call, delta, events, told, usage

Json = dict[str, Any]


def read(route: Responses | None = None, asked: Asked = ASKED, **fields: Any) -> Any:
    body = {"model": "m", "input": "hi", **fields}
    return (route or Responses()).read(json.dumps(body).encode(), asked)


def body(**fields: Any) -> Json:
    return read(**fields).body


def messages(*items: Json, **fields: Any) -> list[Json]:
    return body(input=list(items), **fields)["messages"]


def says(role: str, *texts: str) -> Json:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"role": role, "content": [{"type": kind, "text": text} for text in texts]}


def function(name: str) -> Json:
    return {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": False}


# ---------------------------------------------------------------- requests


def test_plain_fields() -> None:
    assert body(
        instructions="be kind",
        max_output_tokens=7,
        temperature=0,
        top_p=0.5,
        stream=True,
        reasoning={"effort": "minimal"},
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        client_metadata={},
    ) == {
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        "max_tokens": 7,
        "temperature": 0,
        "top_p": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_effort": "low",
    }


def test_items_with_and_without_a_type() -> None:
    found = messages(
        says("developer", "rules"),
        {"type": "message", **says("user", "a", "b")},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
        instructions="first",
    )
    assert found == [
        {"role": "system", "content": "first\n\nrules"},
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]


def test_a_turn_with_tools() -> None:
    found = messages(
        says("user", "weather?"),
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", **says("assistant", "I look.")},
        {"type": "function_call", "call_id": "c1", "name": "get", "arguments": '{"q":1}'},
        {"type": "function_call", "call_id": "c2", "name": "list", "namespace": "fs", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c3", "name": "patch", "input": "a\nb"},
        {"type": "web_search_call", "id": "w"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "data:,"}]},
        {"type": "custom_tool_call_output", "call_id": "c3", "output": "done"},
    )  # fmt: skip
    calls = found[1]["tool_calls"]
    assert found[1]["content"] == "I look."
    assert found[1]["reasoning_content"] == "hm"
    assert [(c["id"], c["function"]["name"]) for c in calls] == [
        ("c1", "get"),
        ("c2", "fs__list"),
        ("c3", "patch"),
    ]
    assert json.loads(calls[2]["function"]["arguments"]) == {"input": "a\nb"}
    assert [m["role"] for m in found] == ["user", "assistant", "tool", "tool", "user", "tool"]
    assert found[3] == {"role": "tool", "tool_call_id": "c2", "content": "x"}


def test_tools_of_all_kinds() -> None:
    tools = [
        function("get"),
        {"type": "namespace", "name": "fs", "tools": [function("list")]},
        {"type": "custom", "name": "patch", "description": "d", "format": {"type": "text"}},
        {"type": "web_search"},
    ]
    found = body(tools=tools, tool_choice="required", parallel_tool_calls=False)
    assert [t["function"]["name"] for t in found["tools"]] == ["get", "fs__list", "patch"]
    assert found["tool_choice"] == "required"
    assert found["parallel_tool_calls"] is False
    named = body(tools=tools, tool_choice={"type": "function", "name": "get"})
    assert named["tool_choice"] == {"type": "function", "function": {"name": "get"}}
    some = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get"}]}  # fmt: skip
    allowed = body(tools=tools, tool_choice=some)
    assert [t["function"]["name"] for t in allowed["tools"]] == ["get"]


def test_the_form_of_the_text() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    found = body(text={"format": form, "verbosity": "low"})["response_format"]
    assert found == {"type": "json_schema", "json_schema": {k: form[k] for k in list(form)[1:]}}
    assert "response_format" not in body(text={"format": {"type": "text"}})
    assert (
        body(text={"format": {"type": "json_object"}})["response_format"]["type"] == "json_object"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": None}, "input is required"),
        ({"input": []}, "input is empty"),
        ({"input": 5}, "input: Expected"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "no item 'x'"),
        ({"input": [{"type": "item_reference"}]}, "id must be a string"),
        ({"input": [{"role": "robot", "content": "x"}]}, "role must be one of"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input_file"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "arguments must be"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"previous_response_id": "resp_9"}, "no response 'resp_9'"),
        ({"tool_choice": "required"}, "no such tool"),
        (
            {"tools": [function("a")], "tool_choice": {"type": "function", "name": "b"}},
            "no tool 'b'",
        ),
        ({"tools": [function("a")], "tool_choice": {"type": "web_search"}}, "web_search"),
        ({"tools": [function("a")], "tool_choice": "maybe"}, "tool_choice must be"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ],
)
def test_what_is_refused(fields: Json, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        read(**fields)


# ---------------------------------------------------------------- answers

CHUNKS = (
    delta(role="assistant", content=""),
    delta(reasoning_content="hm"),
    delta(content="I "),
    delta(content="look."),
    delta(tool_calls=[call(0, "c1", "fs__list", '{"a"')]),
    delta(tool_calls=[call(0, arguments=":1}")]),
    delta(tool_calls=[call(1, "c2", "patch", '{"input":"x\\ny"}')]),
    delta("tool_calls"),
    usage(),
)
TOOLS = [
    {"type": "namespace", "name": "fs", "tools": [function("list")]},
    {"type": "custom", "name": "patch"},
]


def test_events_in_their_order() -> None:
    found = told(read(stream=True, tools=TOOLS), *CHUNKS)
    assert [e["type"].removeprefix("response.") for e in found] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    assert {e.get("output_index") for e in found[8:15]} == {1}
    response = found[-1]["response"]
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "custom_tool_call",
    ]
    assert response["output"][1]["content"][0]["text"] == "I look."
    called = response["output"][2]
    assert (called["name"], called["namespace"], called["arguments"]) == ("list", "fs", '{"a":1}')
    assert response["output"][3]["input"] == "x\ny"
    assert response["usage"]["input_tokens"] == 12
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 4
    assert {item["status"] for item in response["output"]} == {"completed"}


def test_a_whole_answer_is_the_same() -> None:
    streamed = told(read(tools=TOOLS), *CHUNKS)[-1]["response"]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "fs__list", "arguments": '{"a":1}'}},
        {"id": "c2", "function": {"name": "patch", "arguments": '{"input":"x\\ny"}'}},
    ]
    message = {"content": "I look.", "reasoning_content": "hm", "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    found = read(tools=TOOLS).whole({"choices": [choice], "usage": usage()["usage"]})
    assert found == streamed


def test_what_is_cut_is_incomplete() -> None:
    found = told(read(stream=True), delta(content="a"), delta("length"))[-1]
    assert found["type"] == "response.incomplete"
    assert found["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert found["response"]["output"][0]["status"] == "incomplete"


def test_keep_alives_are_events_in_order() -> None:
    translation = read(stream=True)
    said = translation.waiting() + translation.waiting()
    found = events(said + translation.chunk(delta(content="a")))
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    assert [e["type"] for e in found[:3]] == [
        "response.created",
        "response.in_progress",
        "response.in_progress",
    ]


@pytest.mark.parametrize("has_begun", [True, False])
def test_errors(has_begun: bool) -> None:
    translation = read(stream=True)
    said = translation.chunk(delta(content="a")) if has_begun else b""
    refusal = Refusal(400, "too long", code="context_length_exceeded")
    found = events(said + translation.broken(refusal, "r"))
    assert found[0]["type"] == "response.created"
    assert found[-1]["type"] == "response.failed"
    assert found[-1]["response"]["error"]["code"] == "context_length_exceeded"


# ---------------------------------------------------------------- responses that are kept


def other(key: str, unique: str) -> Asked:
    return Asked("r", unique, key, lambda: 1000.0, lambda: 0.5)


def test_a_conversation_goes_on() -> None:
    route = Responses()
    first = read(route, other("me", "1"), instructions="one", tools=TOOLS)
    told(first, *CHUNKS)
    items = [{"type": "function_call_output", "call_id": "c1", "output": "ok"}]
    second = read(route, other("me", "2"), previous_response_id="resp_1", input=items, tools=TOOLS)
    found = second.body["messages"]
    assert [m["role"] for m in found] == ["user", "assistant", "tool"]  # instructions are not kept
    assert found[1]["reasoning_content"] == "hm"
    assert [c["function"]["name"] for c in found[1]["tool_calls"]] == ["fs__list", "patch"]
    told(second, delta(content="done"), delta("stop"))
    third = read(route, other("me", "3"), previous_response_id="resp_2")
    assert [m["role"] for m in third.body["messages"]][-2:] == ["assistant", "user"]


def test_nobody_elses_response() -> None:
    route = Responses()
    told(read(route, other("me", "1")), delta(content="a"), delta("stop"))
    assert route.kept("me", "resp_1")["id"] == "resp_1"
    with pytest.raises(NotFound):
        route.kept("you", "resp_1")
    with pytest.raises(NotFound):
        route.forget("you", "resp_1")
    with pytest.raises(BadRequest):
        read(route, other("you", "2"), previous_response_id="resp_1")
    assert route.forget("me", "resp_1")["deleted"]
    with pytest.raises(NotFound):
        route.kept("me", "resp_1")


def test_what_is_not_to_be_kept() -> None:
    route = Responses()
    told(read(route, other("", "1"), store=False), delta(content="a"), delta("stop"))
    with pytest.raises(NotFound):
        route.kept("", "resp_1")


def test_the_store_is_bounded() -> None:
    by_number = Store(most_responses=2)
    for id in "abc":
        by_number.put("", {"id": id, "output": [{"id": f"of {id}"}]}, [{"id": f"to {id}"}])
    assert by_number.get("", "a") is None
    assert by_number.item("", "of a") is by_number.item("", "to a") is None
    assert by_number.get("", "b") is not None
    assert by_number.item("", "of b") == {"id": "of b"}
    assert by_number.item("", "to b") == {"id": "to b"}
    by_bytes = Store(most_bytes=100)
    by_bytes.put("", {"id": "a", "output": []}, [])
    by_bytes.put("", {"id": "b", "output": [{"id": "x" * 200}]}, [])
    assert by_bytes.get("", "b") is None
    assert by_bytes.item("", "x" * 200) is None
    by_bytes.put("", {"id": "c", "output": []}, [])
    assert by_bytes.get("", "c") is not None


def turn(store: Store, number: int, before: str | None = None) -> None:
    """Asked with `to N`, it says `of N`; each of about 50 bytes."""
    response = {"id": str(number), "output": [{"id": f"of {number}"}]}
    kept = None if before is None else store.get("", before)
    store.put("", response, [{"id": f"to {number}"}], kept)


def ids(items: list[Json]) -> str:
    return ", ".join(item["id"] for item in items)


def test_a_conversation_takes_the_room_of_what_was_said_in_it() -> None:
    store = Store(most_bytes=100 * 60)
    turn(store, 0)
    for number in range(1, 100):
        turn(store, number, str(number - 1))
    first, last = store.get("", "0"), store.get("", "99")
    assert first is not None
    assert last is not None
    assert len(last.conversation()) == 200
    assert ids(last.items()).endswith("to 98, of 98, to 99")
    assert store.item("", "of 50") == {"id": "of 50"}


def test_what_is_forgotten_stays_a_part_of_what_goes_on_with_it() -> None:
    store = Store(most_bytes=3 * 60)
    turn(store, 1)
    turn(store, 2, "1")
    turn(store, 3, "1")
    assert store.remove("", "1")
    for number in (2, 3):
        kept = store.get("", str(number))
        assert kept is not None
        assert ids(kept.conversation()) == f"to 1, of 1, to {number}, of {number}"
    assert store.item("", "of 1") is None
    turn(store, 4)  # there is no room for four
    assert [store.get("", str(number)) is None for number in (2, 3, 4)] == [True, False, False]
    turn(store, 5)  # nor for 1, 3, 4 and 5; with 3 goes 1, which nobody holds any more
    turn(store, 6)
    assert [store.get("", str(number)) is None for number in (3, 4, 5, 6)] == [True, *[False] * 3]


def test_what_was_forgotten_while_it_was_gone_on_with_takes_room_again() -> None:
    store = Store(most_bytes=2 * 60)
    turn(store, 1)
    before = store.get("", "1")
    store.remove("", "1")
    store.put("", {"id": "2", "output": [{"id": "of 2"}]}, [{"id": "to 2"}], before)
    turn(store, 3)
    assert store.get("", "2") is None
    assert store.get("", "3") is not None


def test_items_are_found_again_by_whose_they_are() -> None:
    route = Responses()
    told(read(route, other("me", "1"), tools=TOOLS), *CHUNKS)
    items = route.kept("me", "resp_1")["output"]
    asked: list[Json] = [{"role": "user", "content": "hi"}]
    asked += [{"type": "item_reference", "id": item["id"]} for item in items]
    asked += [{"type": "function_call_output", "call_id": "c1", "output": "ok"}]
    whole: list[Json] = [asked[0], *items, asked[-1]]
    referring = read(route, other("me", "2"), input=asked, tools=TOOLS)
    assert referring.body == read(route, other("me", "3"), input=whole, tools=TOOLS).body
    with pytest.raises(BadRequest, match="no item"):
        read(route, other("you", "2"), input=asked, tools=TOOLS)
    with pytest.raises(BadRequest, match="twice"):
        read(route, other("me", "2"), input=[asked[1], asked[1]])
    assert route.forget("me", "resp_1")
    with pytest.raises(BadRequest, match="no item"):
        read(route, other("me", "2"), input=asked, tools=TOOLS)


def test_what_a_response_was_asked_with() -> None:
    route = Responses()
    told(read(route, other("me", "1")), delta(content="a"), delta("stop"))
    image = {"type": "input_image", "image_url": "data:,"}
    given = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "so"}]
    told(read(route, other("me", "2"), previous_response_id="resp_1", input=given), delta("stop"))
    found = route.items("me", "resp_2", {"order": "asc"})
    assert found["object"] == "list"
    assert [item["type"] for item in found["data"]] == ["message"] * 4
    texts = [item["content"][0] for item in found["data"]]
    assert texts[0] == {"type": "input_text", "text": "hi"}
    assert texts[1]["text"] == "a"
    assert texts[2] == image
    assert texts[3]["text"] == "so"
    ids = [item["id"] for item in found["data"]]
    assert len(set(ids)) == 4
    assert (found["first_id"], found["last_id"], found["has_more"]) == (ids[0], ids[-1], False)
    newest = route.items("me", "resp_2", {"limit": "3"})
    assert [item["id"] for item in newest["data"]] == ids[:0:-1]
    assert newest["has_more"]
    rest = route.items("me", "resp_2", {"limit": "3", "after": newest["last_id"]})
    assert [item["id"] for item in rest["data"]] == ids[:1]
    assert not rest["has_more"]
    with pytest.raises(NotFound):
        route.items("you", "resp_2", {})


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"limit": "²"}, {"order": "up"}, {"after": "x"}])  # fmt: skip
def test_pages_that_there_are_not(query: dict[str, str]) -> None:
    route = Responses()
    told(read(route, other("me", "1")), delta("stop"))
    with pytest.raises(BadRequest, match=next(iter(query))):
        route.items("me", "resp_1", query)


def test_thoughts_as_a_summary() -> None:
    found = told(read(stream=True, tools=TOOLS, reasoning={"summary": "auto"}), *CHUNKS)
    assert [e["type"].removeprefix("response.") for e in found[2:8]] == [
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
    ]  # fmt: skip
    assert {e["summary_index"] for e in found[3:7]} == {0}
    item = found[-1]["response"]["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert messages({"role": "user", "content": "x"}, item)[1]["reasoning_content"] == "hm"


def test_scores_go_with_their_text() -> None:
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    assert body(**asked)["logprobs"] is True
    assert body(**asked)["top_logprobs"] == 1
    assert "logprobs" not in body(top_logprobs=1)

    def scored(token: str) -> Json:
        return {"token": token, "logprob": -0.5, "bytes": [97], "top_logprobs": []}

    chunks = [delta(content="a"), delta(content="b"), delta(content=""), delta("stop")]
    for chunk, token in zip(chunks, "abc", strict=False):
        chunk["choices"][0]["logprobs"] = {"content": [scored(token)]}
    found = told(read(stream=True, **asked), *chunks)
    deltas = [e["logprobs"] for e in found if e["type"] == "response.output_text.delta"]
    assert deltas == [[scored("a")], [scored("b")]]
    part = found[-1]["response"]["output"][0]["content"][0]
    assert part["logprobs"] == [scored(token) for token in "abc"]
