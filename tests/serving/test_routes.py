"""Every route of a real worker, over its Unix socket."""

import base64
import json
import struct
from typing import Any

import httpx
import pytest

from backends.serving import embeddings

CHAT = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


def talk(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], **fields}


def post(client: httpx.Client, path: str, body: Any, status: int = 200) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    found: dict[str, Any] = answer.json()
    return found


def refused(client: httpx.Client, path: str, body: Any, status: int = 400) -> dict[str, Any]:
    error = post(client, path, body, status)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return dict(error)


def stream(client: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with client.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines.count("data: [DONE]") == 1
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


# -- chat ------------------------------------------------------------------------------------------


def test_chat(client: httpx.Client) -> None:
    answer = post(client, CHAT, talk("Grüße 😀"))
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "org/parrot:7b"
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Grüße 😀", "refusal": None}
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["completion_tokens"] == len("Grüße 😀".encode())
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_chat_stream(client: httpx.Client) -> None:
    chunks = stream(client, CHAT, talk("Grüße 😀", stream_options={"include_usage": True}))
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert not any("role" in delta for delta in deltas[1:])
    assert [delta.get("content", "") for delta in deltas[1:-1]] == list("Grüße 😀")
    assert deltas[-1] == {}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == len("Grüße 😀".encode())
    assert chunks[-1]["timings"]["predicted_n"] == len("Grüße 😀".encode())


def test_max_tokens_cuts_and_says_so(client: httpx.Client) -> None:
    for fields in ({"max_tokens": 3}, {"max_completion_tokens": 3}):
        choice = post(client, CHAT, talk("abcdef", **fields))["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("abc", "length")


def test_no_character_is_cut_by_max_tokens(client: httpx.Client) -> None:
    body = talk("é", max_tokens=1)
    whole = post(client, CHAT, body)["choices"][0]["message"]["content"]
    chunks = stream(client, CHAT, body)
    assert whole == "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


@pytest.mark.parametrize("limit", [32000, 10**12, -1, None])
def test_a_large_max_tokens_is_not_refused(client: httpx.Client, limit: int | None) -> None:
    answer = post(client, CHAT, talk("abc", max_tokens=limit, ignore_eos=True))
    assert answer["usage"]["total_tokens"] == 500
    assert answer["choices"][0]["finish_reason"] == "length"


def test_several_choices(client: httpx.Client) -> None:
    answer = post(client, CHAT, talk("abc", n=3))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in answer["choices"]} == {"abc"}
    assert answer["usage"]["completion_tokens"] == 9
    texts = ["", "", ""]
    for chunk in stream(client, CHAT, talk("abc", n=3)):
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ["abc"] * 3


def test_stop(client: httpx.Client) -> None:
    body = talk("one two three", stop=["two", "x"])
    choice = post(client, CHAT, body)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one ", "stop")
    chunks = stream(client, CHAT, body)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "one "


@pytest.mark.parametrize("fields", [{}, {"logprobs": True}, {"tools": [TOOL]}])
def test_stop_tokens_end_the_answer_and_are_no_part_of_it(
    client: httpx.Client, fields: dict[str, Any]
) -> None:
    body = talk("one é two", stop_token_ids=[ord("w"), ord("x")], **fields)
    answer = post(client, CHAT, body)
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one é t", "stop")
    if choice["logprobs"]:
        assert len(choice["logprobs"]["content"]) == len("one é t".encode())
    chunks = stream(client, CHAT, body)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "one é t"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    refused(client, CHAT, talk("a", stop_token_ids=[10**6]))


def test_logprobs(client: httpx.Client) -> None:
    body = talk("é!", logprobs=True, top_logprobs=2)
    content = post(client, CHAT, body)["choices"][0]["logprobs"]["content"]
    assert [token["bytes"] for token in content] == [[0xC3], [0xA9], [ord("!")]]
    assert [alternative["token"] for alternative in content[2]["top_logprobs"]] == ["!", '"']
    streamed = [c["choices"][0]["logprobs"] for c in stream(client, CHAT, body)]
    assert [token for part in streamed if part for token in part["content"]] == content
    refused(client, CHAT, talk("a", top_logprobs=2))


def test_a_tool_call(client: httpx.Client) -> None:
    body = talk(f"Yes.\n{CALL}", tools=[TOOL])
    choice = post(client, CHAT, body)["choices"][0]
    assert choice["message"]["content"] == "Yes."
    [call] = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert choice["finish_reason"] == "tool_calls"
    chunks = [chunk["choices"][0] for chunk in stream(client, CHAT, body)]
    deltas = [chunk["delta"] for chunk in chunks if "tool_calls" in chunk["delta"]]
    parts = [part for delta in deltas for part in delta["tool_calls"]]
    assert (parts[0]["type"], parts[0]["function"]["name"]) == ("function", "f")
    assert [part["index"] for part in parts] == [0] * len('{"a": 1}')
    assert all(set(part) == {"index", "function"} for part in parts[1:])
    assert "".join(part["function"]["arguments"] for part in parts) == '{"a": 1}'
    assert chunks[-1]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": [TOOL], "tool_choice": "none"}])
def test_without_tools_a_call_is_text(client: httpx.Client, fields: dict[str, Any]) -> None:
    message = post(client, CHAT, talk(CALL, **fields))["choices"][0]["message"]
    assert message["content"] == CALL


def test_a_thinking_model_s_reasoning_is_apart(client: httpx.Client) -> None:
    """The parrot's own template knows no reasoning: what looks like it stays where it is."""
    message = post(client, CHAT, talk("<think>a</think>b"))["choices"][0]["message"]
    assert message["content"] == "<think>a</think>b"
    assert "reasoning_content" not in message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "always"}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"response_format": {"type": "table"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"guided_regex": "["}, "guided_regex"),
        ({"guided_json": {"type": "text"}}, "guided_json"),
        ({"grammar": "root ::= nothing"}, "grammar"),
    ],
)
def test_what_cannot_be_followed(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    for stream_too in (False, True):
        error = refused(client, CHAT, talk("a", **fields, stream=stream_too))
        assert error["param"] == param
        assert "\n" not in error["message"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_prompt_that_is_too_long(client: httpx.Client, is_stream: bool) -> None:
    error = refused(client, CHAT, talk("x" * 600, stream=is_stream))
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith(
        "This model's maximum context length is 500 tokens. However,"
    )
    assert "resulted in 62" in error["message"]


def test_a_prompt_of_just_the_context_is_too_long(client: httpx.Client) -> None:
    tokens = [1] * 500
    refused(client, "/v1/completions", {"prompt": tokens})
    answer = post(client, "/v1/completions", {"prompt": tokens[1:]})
    assert answer["usage"]["completion_tokens"] == 1


# -- completions -----------------------------------------------------------------------------------


def test_completions(client: httpx.Client) -> None:
    answer = post(client, "/v1/completions", {"prompt": "abc"})
    assert answer["object"] == "text_completion"
    [choice] = answer["choices"]
    assert choice == {"index": 0, "text": "abc", "logprobs": None, "finish_reason": "stop"}


def test_completions_stream(client: httpx.Client) -> None:
    body = {"prompt": "abc", "stream_options": {"include_usage": True}}
    chunks = stream(client, "/v1/completions", body)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == "abc"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("abc", ["abc"]),
        (["a", "b"], ["a", "b"]),
        ([97, 98], ["ab"]),
        ([[97], [98, 99]], ["a", "bc"]),
    ],
)
def test_four_kinds_of_prompt(client: httpx.Client, prompt: Any, texts: list[str]) -> None:
    answer = post(client, "/v1/completions", {"prompt": prompt, "n": 2})
    assert [choice["text"] for choice in answer["choices"]] == [t for t in texts for _ in range(2)]
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(texts)))


def test_sixteen_tokens_where_no_limit_is_named(client: httpx.Client) -> None:
    answer = post(client, "/v1/completions", {"prompt": "x" * 40})
    assert answer["usage"]["completion_tokens"] == 16


def test_echo_and_logprobs(client: httpx.Client) -> None:
    body = {"prompt": [97, 98], "echo": True, "logprobs": 1}
    [choice] = post(client, "/v1/completions", body)["choices"]
    assert choice["text"] == "abab"
    assert choice["logprobs"] == {
        "tokens": ["a", "b", "a", "b"],
        "token_logprobs": [None, 0.0, 0.0, 0.0],
        "top_logprobs": [None, {"b": 0.0}, {"a": 0.0}, {"b": 0.0}],
        "text_offset": [0, 1, 2, 3],
    }
    chunks = stream(client, "/v1/completions", body)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "abab"


def test_echo_without_new_tokens_scores_the_prompt(client: httpx.Client) -> None:
    body = {"prompt": [97, 98], "echo": True, "logprobs": 0, "max_tokens": 0}
    answer = post(client, "/v1/completions", body)
    assert answer["choices"][0]["text"] == "ab"
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [None, 0.0]
    assert answer["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [260]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
    ],
)
def test_completions_that_cannot_be_served(
    client: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    assert refused(client, "/v1/completions", fields)["param"] == param


# -- embeddings ------------------------------------------------------------------------------------


def vectors(client: httpx.Client, **fields: Any) -> list[Any]:
    answer = post(client, "/v1/embeddings", fields)
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return [item["embedding"] for item in answer["data"]]


def test_embeddings(client: httpx.Client) -> None:
    [one] = vectors(client, input="abc", encoding_format=None)
    assert len(one) == 16
    assert sum(value * value for value in one) == pytest.approx(1)
    assert vectors(client, input=["abc", "d"])[0] == one
    assert vectors(client, input=[256, *b"abc"]) == [one]
    assert vectors(client, input=[[256, *b"abc"]]) == [one]


def test_embeddings_in_base64_are_the_same_numbers(client: httpx.Client) -> None:
    [one] = vectors(client, input="abc")
    [packed] = vectors(client, input="abc", encoding_format="base64")
    assert struct.unpack("<16f", base64.b64decode(packed)) == pytest.approx(one)


def test_fewer_dimensions_are_the_first_ones_at_length_one(client: httpx.Client) -> None:
    [one] = vectors(client, input="abc")
    [less] = vectors(client, input="abc", dimensions=4)
    assert sum(value * value for value in less) == pytest.approx(1)
    assert [value / less[0] for value in less] == pytest.approx([v / one[0] for v in one[:4]])


def test_inputs_are_cut_for_whom_that_is_right(client: httpx.Client) -> None:
    whole = [256, *b"x" * 499]
    cut = vectors(client, input=["x" * 600, "abc"], truncate_prompt_tokens=-1)
    assert cut == vectors(client, input=[whole, [256, *b"abc"]])
    assert vectors(client, input="abcdef", truncate_prompt_tokens=4) == vectors(client, input="abc")


def test_the_mark_behind_a_text_stays() -> None:
    assert embeddings._shorter([1, 5, 6, 7, 2], 3, [2]) == [1, 5, 2]
    assert embeddings._shorter([1, 5, 6, 7], 3, [1]) == [1, 5, 6]
    assert embeddings._shorter([5, 6, 7], 2, []) == [5, 6]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": [999]}, "input"),
        ({"input": "x" * 600}, "input"),
        ({"input": "a", "dimensions": 17}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"input": "a", "truncate_prompt_tokens": 501}, "truncate_prompt_tokens"),
    ],
)
def test_embeddings_that_cannot_be_served(
    client: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    assert refused(client, "/v1/embeddings", fields)["param"] == param


# -- the model and the worker ----------------------------------------------------------------------


def test_models(client: httpx.Client) -> None:
    [card] = client.get("/v1/models").json()["data"]
    assert (card["id"], card["object"]) == ("org/parrot:7b", "model")
    assert client.get("/v1/models/org/parrot:7b").json() == card
    missing = client.get("/v1/models/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_health_and_metrics(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.head("/health").status_code == 200
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "swapper_worker_requests_running 0" in metrics.text


def test_tokens_and_back(client: httpx.Client) -> None:
    tokens = post(client, "/tokenize", {"content": "é<|im_end|>"})["tokens"]
    assert tokens == [0xC3, 0xA9, 259]
    assert post(client, "/detokenize", {"tokens": tokens}) == {"content": "é"}
    plain = post(client, "/tokenize", {"content": "<|im_end|>", "parse_special": False})["tokens"]
    assert plain == list(b"<|im_end|>")
    refused(client, "/detokenize", {"tokens": [260]})
    refused(client, "/tokenize", {})


def test_threads(client: httpx.Client) -> None:
    post(client, "/threads", {"threads": 3})
    assert "swapper_worker_threads 3" in client.get("/metrics").text
    assert refused(client, "/threads", {"threads": 0})["param"] == "threads"


def test_an_engine_that_cannot_sleep(client: httpx.Client) -> None:
    refused(client, "/sleep", {}, 404)
    refused(client, "/wake", {}, 404)


def test_no_such_route_and_wrong_method(client: httpx.Client) -> None:
    refused(client, "/v1/nothing", {}, 404)
    assert client.get(CHAT).status_code == 405
    assert client.get(CHAT).json()["error"]["type"] == "invalid_request_error"


# -- rough treatment -------------------------------------------------------------------------------


def test_bad_bodies_leave_the_worker_alive(client: httpx.Client) -> None:
    for body in (
        b"",
        b"{",
        b"\xff",
        b"[" * 50_000,
        b'{"messages":[{"role":"user","content":"\\ud83d"}]}',
    ):
        assert client.post(CHAT, content=body).status_code == 400
    long = json.dumps(talk("x" * 6_000_000))
    assert client.post(CHAT, content=long).status_code == 400
    assert client.post(CHAT, content=b" " * (65 << 20)).status_code == 413
    assert post(client, CHAT, talk("\0"))["choices"][0]["message"]["content"] == "\0"


def test_hundreds_of_requests_on_one_connection(client: httpx.Client) -> None:
    for index in range(200):
        body = talk(f"{index}")
        if index % 2:
            chunks = stream(client, CHAT, body)
            assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == str(
                index
            )
        else:
            assert post(client, CHAT, body)["choices"][0]["message"]["content"] == str(index)


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**19, "1e999", "NaN"], ids=str)
@pytest.mark.parametrize(
    "field",
    ["max_tokens", "seed", "top_k", "repeat_last_n", "n", "temperature", "top_p", "logit_bias"],
)
def test_numbers_too_large_for_anything(client: httpx.Client, field: str, value: Any) -> None:
    given = f'{{"{value}": 1}}' if field == "logit_bias" else str(value)
    body = f'{{"prompt": "a", "max_tokens": 1, "{field}": {given}}}'
    status = client.post("/v1/completions", content=body).status_code
    assert status == 400 or (status == 200 and value == 10**19 and field == "seed")


@pytest.mark.parametrize("field", ["input", "dimensions", "truncate_prompt_tokens"])
@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["large", "small"])
def test_embeddings_with_numbers_too_large(client: httpx.Client, field: str, value: int) -> None:
    given = f"[{value}]" if field == "input" else str(value)
    body = f'{{"input": "a", "{field}": {given}}}'
    assert client.post("/v1/embeddings", content=body).status_code in (200, 400)
