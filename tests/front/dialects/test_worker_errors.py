"""Errors of workers, in the many words there are for them."""

from __future__ import annotations

import json

import pytest

from swapper.front.dialects.anthropic.errors import error_of
from swapper.front.dialects.reading import refusal_from


@pytest.mark.parametrize(
    "error",
    [
        {"message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 60029 tokens. Please", "code": "context_length_exceeded"},
        {"message": "This model's maximum context length is 8192 tokens. However, you requested 60029 tokens (60000 in the messages, 29 in the completion)."},
        {"message": "the request exceeds the available context size", "type": "exceed_context_size_error", "n_prompt_tokens": 60029, "n_ctx": 8192},
    ],
)  # fmt: skip
def test_overflow_is_told_with_both_numbers(error: dict[str, object]) -> None:
    refusal = refusal_from(400, json.dumps({"error": error}).encode(), "")
    assert refusal.code == "context_length_exceeded"
    told = error_of(refusal, "r")["error"]
    assert told["message"] == "prompt is too long: 60029 tokens > 8192 maximum"
    assert told["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("param", "told"),
    [("input", "input"), ("prompt", "prompt"), ([], "messages"), (None, "messages")],
)
def test_overflow_says_of_what(param: object, told: str) -> None:
    error = {"message": "too long", "n_prompt_tokens": 9, "n_ctx": 8, "param": param}
    refusal = refusal_from(400, json.dumps({"error": error}).encode(), "")
    assert refusal.param == told
    assert f"your {told} resulted in 9 tokens" in refusal.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no","type":"t","code":5}}', "no"),
        (b'{"error":"no"}', "no"),
        (b'{"detail":"no"}', "no"),
        (b'{"object":"error","message":"no"}', "no"),
        (b"<html>", "the model's server answered with status 418"),
        (b"[]", "the model's server answered with status 418"),
        (b'{"detail":[{"loc":[]}]}', "the model's server answered with status 418"),
    ],
)
def test_any_other(body: bytes, message: str) -> None:
    refusal = refusal_from(418, body, "7")
    assert (refusal.status, refusal.message, refusal.retry_after_s) == (418, message, 7)
