"""Ollama's API: requests, answers, lines and models as values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from swapper.config import Card
from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Asked, Granted, StreamTranslation
from swapper.front.dialects.ollama import keep_alive
from swapper.front.dialects.ollama.memory import MARK, recalled, remembered
from swapper.front.dialects.ollama.models import (
    Known,
    Loaded,
    loaded_entry,
    shown_model,
    tag_entry,
)
from swapper.front.dialects.ollama.names import configured
from swapper.front.dialects.ollama.routes import Chat, Embed, Embeddings, Generate, Ollama
from swapper.front.dialects.reading import as_chunks
from swapper.front.refusal import Refusal
from tests.front.dialects.streams import call, delta, usage

Json = dict[str, Any]
HELLO = [{"role": "user", "content": "hi"}]
TIMINGS = {"prompt_n": 8, "prompt_ms": 20.0, "predicted_n": 5, "predicted_ms": 40.5}


class Clock:
    """Half a second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def asked() -> Asked:
    return Asked("r-1", "1", "", lambda: 1000.5, Clock())


def chat(**fields: Any) -> Any:
    body = {"model": "m", "messages": HELLO, **fields}
    return Chat().read(json.dumps(body).encode(), asked())


def generate(**fields: Any) -> Any:
    body = {"model": "m", "prompt": "hi", **fields}
    return Generate().read(json.dumps(body).encode(), asked())


def lines(data: bytes) -> list[Json]:
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def told(translation: StreamTranslation, *chunks: Json) -> list[Json]:
    translation.granted(Granted("m", "echo", 3.0, 2.0))
    return lines(b"".join(map(translation.chunk, chunks)) + translation.end())


def text(of: Iterable[Json], key: str = "content") -> str:
    return "".join(line["message"].get(key, "") for line in of)


# ---------------------------------------------------------------- requests


def test_plain_fields() -> None:
    options = {
        "num_predict": 9.0, "temperature": 0.5, "top_k": 4, "top_p": 0.9, "min_p": 0.1, "seed": 7,
        "stop": ["X"], "repeat_penalty": 1.1, "repeat_last_n": 64, "presence_penalty": 0.1,
        "frequency_penalty": 0.2, "num_ctx": 999999, "num_gpu": 1, "mirostat_tau": 5, "never": "heard",
    }  # fmt: skip
    assert chat(options=options, tools=[], keep_alive="5m").body == {
        "messages": HELLO,
        "max_tokens": 9,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 7,
        "stop": ["X"],
        "repeat_penalty": 1.1,
        "repeat_last_n": 64,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_null_is_absent_and_streams_are_the_default() -> None:
    nulls = {"options": {"temperature": None, "stop": None}, "format": None, "think": None}
    assert chat(**nulls, stream=None, tools=None).body == chat().body
    assert chat().stream is True
    whole = chat(stream=False)
    assert whole.stream is False
    assert "stream" not in whole.body


@pytest.mark.parametrize("number", [-1, -2, 0])
def test_no_limit(number: int) -> None:
    assert "max_tokens" not in chat(options={"num_predict": number}).body


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", None),
        ("json", {"type": "json_object"}),
        (
            {"type": "object"},
            {
                "type": "json_schema",
                "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": True},
            },
        ),
    ],
)
def test_format(given: object, expected: object) -> None:
    assert chat(format=given).body.get("response_format") == expected


@pytest.mark.parametrize(
    ("given", "kwargs", "effort"),
    [
        (True, {"enable_thinking": True}, None),
        (False, {"enable_thinking": False}, None),
        ("medium", {"enable_thinking": True}, "medium"),
        ("max", {"enable_thinking": True}, "high"),
    ],
)
def test_think(given: object, kwargs: Json, effort: str | None) -> None:
    body = chat(think=given).body
    assert (body["chat_template_kwargs"], body.get("reasoning_effort")) == (kwargs, effort)


def test_a_turn_with_tools() -> None:
    first = {"function": {"name": "get", "arguments": {"q": "Oslo"}}}
    second = {"id": "mine", "function": {"name": "get", "arguments": {}}}
    found = chat(
        messages=[
            {"role": "system", "content": "be kind"},
            {"role": "User", "content": "weather?", "images": []},
            {"role": "assistant", "thinking": "hm", "tool_calls": [first, second]},
            {"role": "tool", "content": "no", "tool_call_id": "mine"},
            {"role": "tool", "content": "rain", "tool_name": "get"},
        ]
    ).body["messages"]
    calls = [
        {"id": "call_0", "type": "function", "function": {"name": "get", "arguments": '{"q":"Oslo"}'}},
        {"id": "mine", "type": "function", "function": {"name": "get", "arguments": "{}"}},
    ]  # fmt: skip
    assert found == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "mine", "content": "no"},
        {"role": "tool", "tool_call_id": "call_0", "content": "rain"},
    ]


def test_an_answer_that_the_client_began_is_gone_on_with() -> None:
    begun = {"role": "assistant", "content": "It is"}
    body = chat(messages=[*HELLO, begun]).body
    assert body["messages"] == [*HELLO, begun]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert "continue_final_message" not in chat().body


def test_images() -> None:
    message = {"role": "user", "content": "what?", "images": ["iVBORw0KGgoAAA", "/9j/4AAQ"]}
    content = chat(messages=[message]).body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "image_url"]
    assert content[1]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgoAAA"
    assert content[2]["image_url"]["url"] == "data:image/jpeg;base64,/9j/4AAQ"
    assert generate(images=["R0lGODlh"]).body["messages"][0]["content"][1]


def test_a_generation_is_a_chat_of_one_turn() -> None:
    found = generate(system="be kind", suffix="", template="", context=[], images=None, raw=False)
    assert found.path == "/v1/chat/completions"
    assert found.body["messages"] == [{"role": "system", "content": "be kind"}, *HELLO]


def test_raw_prompts_and_gaps() -> None:
    raw = generate(raw=True, options={"temperature": 0}, format="json", think=False)
    assert raw.path == "/v1/completions"
    assert raw.body["prompt"] == "hi"
    assert raw.body["max_tokens"] == -1
    assert raw.body["response_format"] == {"type": "json_object"}
    assert "chat_template_kwargs" not in raw.body
    gap = generate(suffix="end", options={"num_predict": 5})
    assert (gap.body["prompt"], gap.body["suffix"], gap.body["max_tokens"]) == ("hi", "end", 5)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"template": "{{ .Prompt }}"}, "Go's language"),
        ({"raw": True, "system": "s"}, "system"),
        ({"raw": True, "context": [1]}, "context"),
        ({"suffix": "x", "images": ["a"]}, "images"),
        ({"context": [1, 2, 3]}, "context"),
        ({"context": [MARK, 7]}, "context"),
        ({"context": [MARK, 1 << 40]}, "context"),
        ({"format": "xml"}, "format"),
        ({"think": "very"}, "think"),
        ({"keep_alive": "5 minutes"}, "keep_alive"),
        ({"keep_alive": "5x"}, "keep_alive"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"model": 5}, "model"),
        ({"prompt": 5}, "prompt"),
    ],
)
def test_what_cannot_be_done_is_said(fields: Json, word: str) -> None:
    with pytest.raises(BadRequest, match=word):
        generate(**fields)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "robot", "content": "x"},
        {"content": "x"},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "assistant", "tool_calls": [{"function": {}}]},
        {"role": "assistant", "tool_calls": ["x"]},
    ],
)
def test_bad_messages(message: Json) -> None:
    with pytest.raises(BadRequest):
        chat(messages=[message])


# ---------------------------------------------------------------- names, stays, context


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("tiny", "tiny"),
        ("tiny:latest", "tiny"),
        ("TINY", "tiny"),
        ("Org/Model:7B", "org/model:7b"),
        ("other", "other:latest"),
        ("nobody:latest", "nobody:latest"),
    ],
)
def test_names(given: str, expected: str) -> None:
    assert configured(given, ["tiny", "org/model:7b", "other:latest"]) == expected


def test_a_name_that_is_configured_goes_before_one_that_is_like_it() -> None:
    assert configured("x:latest", ["x", "x:latest", "X"]) == "x:latest"
    assert configured("X", ["x", "X"]) == "X"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("", None),
        (0, 0.0),
        ("0", 0.0),
        ("0s", 0.0),
        (300, 300.0),
        (0.5, 0.5),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("300ms", 0.3),
        ("90", 90.0),
        (-1, math.inf),
        ("-1", math.inf),
        ("-1s", math.inf),
        ("-5m", math.inf),
        (1e308, math.inf),
        ("9999999h", math.inf),
    ],
)
def test_keep_alive(given: Any, expected: float | None) -> None:
    assert keep_alive.seconds(given) == expected


@pytest.mark.parametrize("given", ["x", "m", "1h 5m", "--1s", "+", "-", "1e9s", "9" * 70, "٣s"])
def test_what_is_no_duration(given: str) -> None:
    with pytest.raises(BadRequest):
        keep_alive.seconds(given)


@pytest.mark.parametrize("words", ["", "a", "ab", "abc", "wörld 🎉" * 50])
def test_a_context_says_again_what_was_said(words: str) -> None:
    messages = [{"role": "user", "content": words}, {"role": "assistant", "content": "yes"}]
    context = remembered(messages)
    assert recalled(context) == messages
    assert all(0 <= number < 1 << 24 for number in context)


def test_a_conversation_by_context() -> None:
    first = generate(system="be kind", stream=False)
    answer = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}
    context = first.whole(answer)["context"]
    second = generate(prompt="and?", context=context)
    assert second.body["messages"] == [
        {"role": "system", "content": "be kind"},
        *HELLO,
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "and?"},
    ]
    third = generate(prompt="and?", context=context, system="be short")
    assert third.body["messages"][0]["content"] == "be short"
    assert len(third.body["messages"]) == 4


# ---------------------------------------------------------------- answers


def answer(**message: Any) -> Json:
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"choices": [choice], "usage": usage()["usage"], "timings": TIMINGS}


def test_a_whole_answer() -> None:
    translation = chat(stream=False)
    translation.granted(Granted("m", "echo", 3.0, 2.0))
    assert translation.whole(answer(content="hello", reasoning_content="hm")) == {
        "model": "m",
        "created_at": "1970-01-01T00:16:40.500000Z",
        "message": {"role": "assistant", "content": "hello", "thinking": "hm"},
        "done": True,
        "done_reason": "stop",
        "total_duration": 1_500_000_000,
        "load_duration": 2_000_000_000,
        "prompt_eval_count": 12,
        "prompt_eval_duration": 20_000_000,
        "eval_count": 5,
        "eval_duration": 40_500_000,
    }


def test_a_stream() -> None:
    found = told(
        chat(),
        delta(role="assistant", content=""),
        delta(reasoning_content="h"),
        delta(reasoning="m"),
        delta(content="hel"),
        delta(content="lo"),
        delta("length"),
        {**usage(), "timings": TIMINGS},
    )
    assert text(found) == "hello"
    assert text(found, "thinking") == "hm"
    assert [line["done"] for line in found] == [False] * 4 + [True]
    assert all(line["message"]["role"] == "assistant" for line in found)
    last = found[-1]
    assert last["done_reason"] == "length"
    assert (last["prompt_eval_count"], last["eval_count"]) == (12, 5)
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (20_000_000, 40_500_000)


def test_times_are_measured_where_the_worker_tells_none() -> None:
    last = told(chat(), delta(content="a"), delta("stop"), usage())[-1]
    assert last["load_duration"] == 2_000_000_000
    assert last["prompt_eval_duration"] == 500_000_000  # granted at 0.5, first piece at 1.0
    assert last["eval_duration"] == 500_000_000
    assert last["total_duration"] == 1_500_000_000


def test_what_is_not_known_is_not_told() -> None:
    whole = {"choices": answer(content="x")["choices"]}
    for last in (chat(stream=False).whole(whole), told(chat(), *as_chunks(whole))[-1]):
        assert "eval_count" not in last
        assert "eval_duration" not in last
        assert "prompt_eval_duration" not in last
        assert last["total_duration"] > 0


def test_thinking_that_is_not_wanted_is_not_told() -> None:
    found = told(
        chat(think=False), delta(reasoning_content="hm"), delta(content="a"), delta("stop")
    )
    assert found[0]["message"] == {"role": "assistant", "content": "a"}
    whole = chat(think=False, stream=False).whole(answer(content="a", reasoning_content="hm"))
    assert "thinking" not in whole["message"]


CALLS = [
    delta(content="I look."),
    delta(tool_calls=[call(0, "c1", "get", '{"q":')]),
    delta(tool_calls=[call(0, arguments=' "Oslo"}')]),
    delta(tool_calls=[call(1, None, "put")]),
    delta("tool_calls"),
]
TOLD_CALLS = [
    {"id": "c1", "function": {"index": 0, "name": "get", "arguments": {"q": "Oslo"}}},
    {"id": "call_1_1", "function": {"index": 1, "name": "put", "arguments": {}}},
]


def test_tool_calls_come_whole() -> None:
    found = told(chat(), *CALLS)
    calls = [line["message"].get("tool_calls") for line in found]
    assert calls == [None, [TOLD_CALLS[0]], [TOLD_CALLS[1]], None]
    assert found[-1]["done_reason"] == "stop"
    given = [call(0, "c1", "get", '{"q": "Oslo"}'), call(1, None, "put")]
    whole = chat(stream=False).whole(answer(content=None, tool_calls=given))
    assert whole["message"] == {"role": "assistant", "content": "", "tool_calls": TOLD_CALLS}


def test_arguments_that_are_no_object() -> None:
    found = told(chat(), delta(tool_calls=[call(0, "c", "f", "[1")]), delta("stop"))
    arguments = found[0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert arguments == {"INVALID_JSON": "[1"}


def test_logprobs() -> None:
    scored = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]
    assert chat(logprobs=True, top_logprobs=2).body["top_logprobs"] == 2
    chunk = delta(content="a")
    chunk["choices"][0]["logprobs"] = {"content": scored}
    found = told(chat(logprobs=True), chunk, delta("stop"))
    assert [line.get("logprobs") for line in found] == [scored, None]
    whole = answer(content="a")
    whole["choices"][0]["logprobs"] = {"content": scored}
    assert chat(stream=False).whole(whole)["logprobs"] == scored


def test_logprobs_of_plain_prompts() -> None:
    asked = {"raw": True, "logprobs": True, "top_logprobs": 1}
    assert generate(**asked).body["logprobs"] == 1
    assert "top_logprobs" not in generate(**asked).body
    assert generate(raw=True, logprobs=True).body["logprobs"] == 0

    def chunk(text: str, finish: str | None, **logprobs: Any) -> Json:
        choice = {"index": 0, "text": text, "logprobs": logprobs or None, "finish_reason": finish}
        return {"choices": [choice]}

    one = chunk("a", None, tokens=["a"], token_logprobs=[-1.5], top_logprobs=[{"a": -1.5, "b": -0.5}])  # fmt: skip
    half = chunk("", None, tokens=["\ufffd"], token_logprobs=[-2.0], top_logprobs=[None])
    found = told(generate(**asked), one, half, chunk("", "length"))
    a = {"token": "a", "logprob": -1.5, "bytes": [97]}
    b = {"token": "b", "logprob": -0.5, "bytes": [98]}
    first = [{**a, "top_logprobs": [b]}]
    second = [{"token": "\ufffd", "logprob": -2.0, "top_logprobs": []}]
    assert [line.get("logprobs") for line in found] == [first, second, None]
    one["choices"][0]["finish_reason"] = "stop"
    assert generate(stream=False, **asked).whole(one)["logprobs"] == first


def test_generations_of_both_kinds() -> None:
    found = told(generate(), delta(content="a"), delta(content="b"), delta("stop"), usage())
    assert [line["response"] for line in found] == ["a", "b", ""]
    assert recalled(found[-1]["context"])[-1] == {"role": "assistant", "content": "ab"}
    plain = [
        {"choices": [{"index": 0, "text": "a", "finish_reason": None}]},
        {"choices": [{"index": 0, "text": "b", "finish_reason": "length"}]},
        usage(),
    ]
    found = told(generate(raw=True), *plain)
    assert [line["response"] for line in found] == ["a", "b", ""]
    assert found[-1]["done_reason"] == "length"
    assert "context" not in found[-1]
    whole = generate(raw=True, stream=False).whole(plain[1])
    assert whole["response"] == "b"


@pytest.mark.parametrize("make", [chat, generate])
@pytest.mark.parametrize(("stays", "reason"), [("5m", "load"), (0, "unload"), (None, "load")])
def test_nothing_to_say_loads_or_unloads(make: Any, stays: object, reason: str) -> None:
    nothing = {"messages": []} if make is chat else {"prompt": ""}
    translation = make(**nothing, keep_alive=stays)
    assert translation.path is None
    (line,) = lines(translation.end())
    assert (line["done"], line["done_reason"]) == (True, reason)
    assert "context" not in line
    whole = make(**nothing, keep_alive=stays, stream=False).whole({})
    assert whole["done_reason"] == reason
    assert ("message" in whole) is (make is chat)


@pytest.mark.parametrize("make", [chat, generate])
def test_waiting_is_a_line_that_adds_nothing(make: Any) -> None:
    (line,) = lines(make().waiting())
    assert line["done"] is False
    assert line.get("response", "") == line.get("message", {}).get("content", "") == ""


def test_errors() -> None:
    unknown = Refusal(404, "model 'x' is not configured; ...", code="model_not_found")
    assert Ollama().refused(unknown, "r") == {"error": "model 'x' not found; ..."}
    assert lines(chat().broken(Refusal(502, "why"), "r")) == [{"error": "why"}]


def test_embeddings() -> None:
    def read(dialect: Any, **fields: Any) -> Any:
        return dialect.read(json.dumps({"model": "m", **fields}).encode(), asked())

    data = [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}]
    found = {"data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    many = read(Embed(), input=["a", "b"], dimensions=2, truncate=False, options={"num_ctx": 9})
    assert (many.path, many.body) == ("/v1/embeddings", {"input": ["a", "b"], "dimensions": 2})
    told = many.whole(found)
    assert told["embeddings"] == [[0.6, 0.8], [0.0, 1.0]]
    assert told["prompt_eval_count"] == 7
    cut = read(Embed(), input="a", truncate=True).body
    assert cut == {"input": "a", "truncate_prompt_tokens": -1}
    assert read(Embed(), input=[]).path is None
    assert read(Embed(), input=[]).whole({})["embeddings"] == []
    with pytest.raises(BadRequest):
        read(Embed())
    with pytest.raises(BadRequest):
        read(Embed(), input=5)
    one = read(Embeddings(), prompt="a")
    assert one.body == {"input": "a"}
    assert one.whole(found) == {"embedding": [3.0, 4.0]}
    assert read(Embeddings()).whole({}) == {"embedding": []}


# ---------------------------------------------------------------- models

CARD = Card(
    format="gguf",
    architecture="llama",
    num_parameters=7_600_000_000,
    quantization="Q4_K_M",
    context=4096,
    embedding_length=512,
    size_bytes=100,
    modified_at=1000.5,
    template="{% if enable_thinking %}",
    license="MIT",
    facts={"llama.block_count": 3, "llama.context_length": 9999},
)


def test_a_model_that_was_never_loaded() -> None:
    known = Known("m", "llamacpp", CARD, 5.0, 4096)
    entry = tag_entry(known)
    assert entry["modified_at"] == "1970-01-01T00:16:40.500000Z"
    assert entry["capabilities"] == ["completion", "tools", "thinking"]
    assert entry["details"]["parameter_size"] == "7.6B"
    seeing = replace(known, card=replace(CARD, sees=True))
    assert tag_entry(seeing)["capabilities"] == ["completion", "tools", "vision", "thinking"]
    assert len(entry["digest"]) == 64
    assert int(entry["digest"], 16)
    shown = shown_model(known, "be kind", "mine")
    assert shown["model_info"] == {
        "llama.block_count": 3,
        "llama.context_length": 4096,
        "general.architecture": "llama",
        "general.parameter_count": 7_600_000_000,
        "general.basename": "mine",
    }
    assert shown["parameters"] == "num_ctx                        4096"
    assert shown["system"] == "be kind"


def test_what_a_worker_said_goes_before_what_the_file_says() -> None:
    known = Known("m", "llamacpp", CARD, 5.0, 2048, ("embeddings", "sleep"))
    assert tag_entry(known)["capabilities"] == ["embedding", "thinking"]
    assert shown_model(known, None, None)["model_info"]["llama.context_length"] == 2048


def test_a_model_without_files() -> None:
    shown = shown_model(Known("m", "url", Card(), 5.0), None, None)
    assert shown["model_info"] == {"general.architecture": "url"}
    assert shown["capabilities"] == ["completion", "tools"]
    assert "parameters" not in shown


def test_what_is_loaded() -> None:
    known = Known("m", "llamacpp", CARD, 5.0, 4096)
    entry = loaded_entry(known, Loaded(100, 60, 1300.5), 1000.5)
    assert (entry["size"], entry["size_vram"], entry["context_length"]) == (100, 60, 4096)
    assert entry["expires_at"] == "1970-01-01T00:21:40.500000Z"
    assert loaded_entry(known, Loaded(1, 0, None), 0.0)["expires_at"] > "2060"
