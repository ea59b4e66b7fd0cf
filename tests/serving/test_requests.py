"""Fields are checked, unknown ones and nulls are not in the way, and an error names its field."""

import json
from typing import Any

import pytest

from backends.serving.engine import SamplingParams
from backends.serving.errors import RequestError
from backends.serving.requests import ChatRequest, CompletionRequest, check, decode, sampling, stops

MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> ChatRequest:
    return decode(json.dumps({"messages": MESSAGES, **fields}).encode(), ChatRequest)


def test_unknown_fields_and_nulls_change_nothing() -> None:
    plain = chat()
    assert chat(store=True, metadata={"a": 1}, verbosity="low", service_tier="auto") == plain
    nulls = dict.fromkeys(set(ChatRequest.__struct_fields__) - {"messages"})
    assert chat(**nulls) == plain
    assert sampling(plain, 300, None) == SamplingParams()


def test_every_sampling_field_arrives() -> None:
    request = chat(
        temperature=0,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        typical_p=0.8,
        repetition_penalty=1.1,
        presence_penalty=-1,
        frequency_penalty=0.5,
        repeat_last_n=64,
        logit_bias={"17": -100, "3": 2.5},
        seed=-7,
        ignore_eos=True,
    )
    check(request)
    assert sampling(request, 300, 5) == SamplingParams(
        temperature=0,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        typical_p=0.8,
        repetition_penalty=1.1,
        presence_penalty=-1,
        frequency_penalty=0.5,
        penalty_last_n=64,
        logit_bias={17: -100, 3: 2.5},
        seed=-7,
        logprobs=5,
        ignore_eos=True,
    )


def test_other_spellings() -> None:
    request = chat(repeat_penalty=1.2, top_k=-1, seed=-1)
    check(request)
    assert sampling(request, 300, None) == SamplingParams(repetition_penalty=1.2)
    both = sampling(chat(repeat_penalty=1.2, repetition_penalty=1.3), 300, None)
    assert both.repetition_penalty == 1.3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -1}, "min_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"n": 0}, "n"),
        ({"n": 100000}, "n"),
        ({"n": True}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stop": 3}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ["a", 1]}, "stop[1]"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"300": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"²": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"1": "a"}}, "logit_bias"),
        ({"logit_bias": [[1, 1]]}, "logit_bias"),
        ({"tools": [1]}, "tools[0]"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"n_predict": 5}, "n_predict"),
        ({"top_n_sigma": 1}, "top_n_sigma"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"lora": [{"id": 0, "scale": 1}]}, "lora"),
        ({"response_format": "json"}, "response_format"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
    ],
)
def test_what_cannot_be_served_names_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        _served(fields)
    assert raised.value.status == 400
    assert raised.value.param == param
    assert param.split("[", maxsplit=1)[0] in raised.value.message


def _served(fields: dict[str, Any]) -> None:
    request = chat(**fields)
    check(request)
    stops(request)
    sampling(request, 300, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"messages": NaN}',
        b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
        b"[" * 50_000 + b"]" * 50_000,
        b'{"messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"x": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b', "messages": []}',
        b"\xff\xfe",
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
    ],
)
def test_a_body_that_is_no_request_is_a_400(body: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        decode(body, ChatRequest)
    assert raised.value.status == 400


@pytest.mark.parametrize("field", ["seed", "max_tokens"])
def test_a_number_that_is_too_long_is_said_to_be(field: str) -> None:
    with pytest.raises(RequestError, match=f"{field} must be a number of 64 bits"):
        _served({field: 2**70})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(RequestError, match="messages is required") as raised:
        decode(b"{}", ChatRequest)
    assert raised.value.param == "messages"


@pytest.mark.parametrize(
    ("fields", "thinks", "effort"),
    [
        ({"thinking": {"type": "disabled"}}, False, None),
        ({"thinking": {"type": "enabled"}}, True, None),
        ({"thinking": {"type": "enabled"}, "enable_thinking": False}, False, None),
        ({"reasoning": {"enabled": False}}, False, None),
        ({"reasoning": {"effort": "low"}}, None, "low"),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, None, "high"),
        ({"reasoning": {"effort": 5}, "thinking": {"type": []}}, None, None),
    ],
)
def test_thinking_in_other_servers_words(
    fields: dict[str, Any], thinks: bool | None, effort: str | None
) -> None:
    request = chat(**fields)
    assert (request.enable_thinking, request.reasoning_effort) == (thinks, effort)


def test_stops() -> None:
    assert stops(chat()) == ()
    assert stops(chat(stop="a")) == ("a",)
    assert stops(chat(stop=["a", "", "b", "a"])) == ("a", "b")


def test_a_prompt_may_be_of_four_kinds() -> None:
    for prompt in ("a", ["a", "b"], [1, 2], [[1], [2]]):
        body = json.dumps({"prompt": prompt}).encode()
        assert decode(body, CompletionRequest).prompt == prompt
