"""The last requests and answers, kept where the configuration asks for it, and nowhere else."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass

import pytest

from swapper.front.joined import joined
from swapper.front.keys import ApiKey
from swapper.front.redaction import safe_headers, safe_target, without_secrets
from tests.front.conftest import House
from tests.front.fakes import EVENTS_HEAD, LAST_CHUNK, Peer, answering, chunk, http

KEY = "a-key-of-some-length"
REQUESTS = "/swapper/v1/requests"
HELLO = b'{"model":"tiny","messages":[{"role":"user","content":"hello"}],"stream":true}'
EVENTS = [
    b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm. "}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"Gr\xc3\xbc"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"\xc3\x9fe"},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
]


@dataclass
class Limits:
    requests: int = 10
    memory: int = 1024 * 1024


async def stream(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(EVENTS_HEAD)
        for event in EVENTS:
            await peer.send(chunk(event))
        await peer.send(LAST_CHUNK)


async def capturing(house: House, **limits: int) -> House:
    assert house.front is not None
    house.front.set_capture(Limits(**limits))
    return house


async def listed(house: House) -> list[dict[str, object]]:
    return (await house.ask("GET", REQUESTS)).json["requests"]  # type: ignore[return-value]


async def kept(house: House, number: int = 1) -> dict[str, dict[str, object]]:
    got = await house.ask("GET", f"{REQUESTS}/{number}")
    assert got.status == 200
    return got.json  # type: ignore[return-value]


async def test_nothing_is_kept_unless_it_is_asked_for(house: House) -> None:
    await house.worker(stream)
    await house.chat(HELLO)
    (request,) = await listed(house)
    assert (request["number"], request["is_kept"], request["answer_tokens"]) == (1, False, None)
    assert (await house.ask("GET", REQUESTS)).json["capture"] is None
    assert (await house.ask("GET", f"{REQUESTS}/1")).status == 404


async def test_a_stream_is_kept_and_joined(house: House) -> None:
    await capturing(house)
    await house.worker(stream)
    got = await house.chat(HELLO, {"content-type": "application/json", "user-agent": "tests"})
    assert got.body == b"".join(EVENTS)
    (request,) = await listed(house)
    assert request["is_kept"]
    assert (request["dialect"], request["finish"]) == ("openai", "stop")
    assert (request["prompt_tokens"], request["answer_tokens"]) == (5, 2)
    told = await kept(house)
    assert told["request"]["text"] == HELLO.decode()
    assert (told["request"]["method"], told["request"]["target"]) == (
        "POST",
        "/v1/chat/completions",
    )
    assert ["user-agent", "tests"] in told["request"]["headers"]  # type: ignore[operator]
    assert told["response"]["text"] == b"".join(EVENTS).decode()
    assert told["response"]["said"] == {"text": "Grüße", "reasoning": "Hm. ", "calls": []}
    assert told["worker"] == "tiny#1"


async def test_a_stream_that_waited_is_kept_from_its_first_sign_of_life(bare_house: House) -> None:
    await bare_house.open(keepalive_after_s=0.01, keepalive_every_s=60)
    await capturing(bare_house)
    await bare_house.worker(stream)
    bare_house.dispatcher.gate.clear()
    client = await bare_house.client()
    await client.begin("POST", "/v1/chat/completions", HELLO)
    _, headers = await client.head()
    pieces = client.pieces(headers)
    assert await anext(pieces) == b": waiting\n\n"
    bare_house.dispatcher.gate.set()
    rest = b"".join([piece async for piece in pieces])
    told = await kept(bare_house)
    assert told["response"]["text"] == ": waiting\n\n" + rest.decode()
    assert told["response"]["said"]["text"] == "Grüße"  # type: ignore[index]


async def test_what_the_client_said_is_kept_and_not_what_the_worker_was_told(house: House) -> None:
    await capturing(house)
    whole = b'{"choices":[{"index":0,"message":{"content":"Hi."},"finish_reason":"stop"}]}'
    await house.worker(answering(http(whole)))
    body = b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"max_tokens":5}'
    got = await house.post("/v1/messages", body)
    told = await kept(house)
    assert told["dialect"] == "anthropic"
    assert told["request"]["text"] == body.decode()
    assert told["response"]["text"] == got.body.decode()
    assert (told["response"]["said"]["text"], told["finish"]) == ("Hi.", "end_turn")  # type: ignore[index]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_what_a_server_has_compressed_is_read(house: House, encoding: str) -> None:
    plain = b'{"choices":[{"index":0,"message":{"content":"Hi."}}],"api_key":"of-a-server"}'
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "br": lambda _: b"\xff\x00"}
    body = packed[encoding](plain)
    await capturing(house)
    await house.worker(answering(http(body, extra=f"content-encoding: {encoding}\r\n")))
    assert (await house.chat()).body == body
    told = await kept(house)
    assert told["response"]["bytes"] == len(body)
    if encoding == "br":  # not read here, and so no text
        assert told["response"]["text"] is None
    else:
        assert told["response"]["text"] == plain.decode().replace("of-a-server", "[redacted]")
        assert told["response"]["said"]["text"] == "Hi."  # type: ignore[index]


async def test_refusals_are_kept_too(house: House) -> None:
    await capturing(house)
    got = await house.chat(b'{"model":"nobody"}')
    told = await kept(house)
    assert (told["status"], told["request"]["text"]) == (404, '{"model":"nobody"}')
    assert told["response"]["text"] == got.body.decode()


async def test_what_is_refused_before_it_counts_is_not_taken_for_another(bare_house: House) -> None:
    guest = ApiKey("guest", "guest-key", models=frozenset({"tiny"}))
    await bare_house.open(api_keys=[guest, ApiKey("chief", KEY)])
    await capturing(bare_house)
    headers = {"authorization": "Bearer guest-key"}
    got = await bare_house.post("/upstream/org/model:7b/props", b"", headers)
    assert got.status == 403
    got = await bare_house.ask("GET", REQUESTS, headers={"authorization": f"Bearer {KEY}"})
    assert got.json["requests"] == []
    assert got.json["capture"]["requests"] == 0  # type: ignore[index]


async def test_no_more_than_so_many_and_so_much(house: House) -> None:
    await capturing(house, requests=3, memory=40_000)
    await house.worker()
    for _ in range(5):
        await house.chat()
    assert [request["is_kept"] for request in await listed(house)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert (await house.ask("GET", REQUESTS)).json["capture"]["oldest"] == 3  # type: ignore[index]
    assert (await house.ask("GET", f"{REQUESTS}/2")).status == 404
    await house.chat(json.dumps({"model": "tiny", "prompt": "é" * 30_000}).encode())
    told = await kept(house, 6)
    assert told["request"]["is_cut"]
    assert len(told["request"]["text"]) == 10_000  # type: ignore[arg-type]  # a quarter of all
    assert told["request"]["bytes"] > 30_000  # type: ignore[operator]
    for _ in range(2):
        await house.chat(json.dumps({"model": "tiny", "prompt": "x" * 30_000}).encode())
    capture = (await house.ask("GET", REQUESTS)).json["capture"]
    assert capture["bytes"] <= 40_000  # type: ignore[index]
    assert capture["most_bytes"] == 40_000  # type: ignore[index]
    assert [request["is_kept"] for request in await listed(house)][-2:] == [False, True]


@pytest.mark.parametrize("how", ["deleted", "switched off"])
async def test_it_can_be_forgotten(house: House, how: str) -> None:
    await capturing(house)
    await house.worker()
    await house.chat()
    if how == "deleted":
        await house.ask("DELETE", REQUESTS)
    else:
        assert house.front is not None
        house.front.set_capture(None)
        house.front.set_capture(Limits())
    assert (await house.ask("GET", f"{REQUESTS}/1")).status == 404
    assert (await house.ask("GET", REQUESTS)).json["capture"]["oldest"] is None  # type: ignore[index]
    await house.chat()
    assert [request["is_kept"] for request in await listed(house)] == [False, True]


async def test_one_that_leaves_is_kept_with_what_it_got(house: House) -> None:
    async def half(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD + chunk(EVENTS[0] + EVENTS[1]))
        await peer.gone()

    await capturing(house)
    await house.worker(half)
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", HELLO)
    _, headers = await client.head()
    await anext(client.pieces(headers))
    client.leave()
    await house.dispatcher.until(held=0)
    told = await kept(house)
    assert told["error"] == "client_left"
    assert told["response"]["said"]["text"] == "Grü"  # type: ignore[index]


async def test_it_is_for_admins_and_holds_no_credentials(bare_house: House) -> None:
    keys = [ApiKey("chief", KEY), ApiKey("guest", "guest-key-x", scopes=frozenset({"inference"}))]
    await bare_house.open(api_keys=keys)
    await capturing(bare_house)
    await bare_house.worker()
    guest = {"authorization": "Bearer guest-key-x", "cookie": "session=oven"}
    body = {"model": "tiny", "tools": [{"headers": {"Authorization": "Bearer of-a-tool"}}]}
    said = json.dumps({**body, "messages": "my key is guest-key-x"}).encode()
    await bare_house.post("/v1/chat/completions?api_key=guest-key-x&x=1", said, guest)
    assert (await bare_house.ask("GET", f"{REQUESTS}/1", headers=guest)).status == 403
    assert (await bare_house.ask("GET", REQUESTS, headers=guest)).status == 403
    got = await bare_house.ask("GET", f"{REQUESTS}/1", headers={"x-api-key": KEY})
    assert got.status == 200
    for secret in (b"guest-key-x", b"oven", b"of-a-tool", KEY.encode()):
        assert secret not in got.body
    assert got.json["request"]["target"] == "/v1/chat/completions?api_key=[redacted]&x=1"  # type: ignore[index]
    assert "my key is [redacted]" in got.json["request"]["text"]  # type: ignore[index]
    assert got.json["key"] == "guest"


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"api_key": "abc"}', b'{"api_key": "[redacted]"}'),
        (b'{"X-Api-Key":"a\\"b", "n": 1}', b'{"X-Api-Key":"[redacted]", "n": 1}'),
        (b'{"a": "{\\"password\\": \\"abc\\"}"}', b'{"a": "{\\"password\\": \\"[redacted]\\"}"}'),
        (b'{"client_secret": "never ends', b'{"client_secret": "[redacted]'),
        (b"Authorization: Bearer abcdefgh1", b"Authorization: Bearer [redacted]"),
        (b'{"max_tokens": 5, "token": "the"}', b'{"max_tokens": 5, "token": "the"}'),
        (b"a whole-key and a half", b"a [redacted] and a half"),
    ],
)
def test_secrets_are_left_out(body: bytes, expected: bytes) -> None:
    assert without_secrets(body, "whole-key") == expected


def test_headers_and_queries_too() -> None:
    headers = [(b"X-Api-Key", b"a"), (b"Set-Cookie", b"b"), (b"Accept", b"c")]
    assert safe_headers(headers) == [
        ("x-api-key", "[redacted]"), ("set-cookie", "[redacted]"), ("accept", "c"),
    ]  # fmt: skip
    assert safe_target("/v1/x?a=1&access_token=abc&b=2") == "/v1/x?a=1&access_token=[redacted]&b=2"


# ---------------------------------------------------------------- what answers come to

JSON, STREAM, LINES = "application/json", "text/event-stream", "application/x-ndjson"


def events(*items: object) -> bytes:
    return b"".join(f"data: {json.dumps(item)}\n\n".encode() for item in items)


CALL = {"name": "f", "arguments": '{"a": 1}'}
ANSWERS = {
    "openai, whole": (JSON, json.dumps({
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "content": "Hi", "reasoning_content": "Hm", "tool_calls": [{"function": CALL}]}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }).encode()),
    "openai, streamed": (STREAM, events(
        {"choices": [{"index": 0, "delta": {"content": "H", "reasoning": "Hm"}}]},
        {"choices": [{"index": 1, "delta": {"content": "another choice"}}]},
        {"choices": [{"index": 0, "delta": {"content": "i"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": 0, "function": {"name": "f", "arguments": ""}}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": 0, "function": {"arguments": '{"a": 1}'}}]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    ) + b": waiting\n\ndata: [DONE]\n\n"),
    "anthropic, whole": (JSON, json.dumps({
        "type": "message", "stop_reason": "tool_calls", "usage": {"input_tokens": 3, "output_tokens": 4},
        "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"},
                    {"type": "tool_use", "name": "f", "input": '{"a": 1}'}],
    }).encode()),
    "anthropic, streamed": (STREAM, events(
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 0}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "name": "f", "input": {}}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_calls"}, "usage": {"output_tokens": 4}},
        {"type": "message_stop"},
    )),
    "ollama, streamed": (LINES, b"\n".join(json.dumps(line).encode() for line in (
        {"message": {"content": "H", "thinking": "Hm"}, "done": False},
        {"message": {"content": "i", "tool_calls": [{"function": CALL}]}, "done": False},
        {"message": {"content": ""}, "done": True, "done_reason": "tool_calls",
         "prompt_eval_count": 3, "eval_count": 4},
    ))),
    "responses, streamed": (STREAM, events(
        {"type": "response.created", "response": {"object": "response", "status": "in_progress", "output": []}},
        {"type": "response.output_text.delta", "delta": "H"},
        {"type": "response.incomplete", "response": {
            "object": "response", "status": "incomplete", "incomplete_details": {"reason": "tool_calls"},
            "usage": {"input_tokens": 3, "output_tokens": 4}, "output": [
                {"type": "reasoning", "summary": [{"text": "Hm"}]},
                {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
                {"type": "function_call", **CALL}]}},
    )),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_every_dialect_are_joined(name: str) -> None:
    found = joined(*ANSWERS[name])
    assert (found.text, found.reasoning) == ("Hi", "Hm")
    assert [(call.name, call.arguments) for call in found.calls.values()] == [("f", '{"a": 1}')]
    assert (found.prompt_tokens, found.answer_tokens, found.finish) == (3, 4, "tool_calls")


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\x00", b"[1, 2]", b'{"choices": 5}', b'{"choices": [null]}', b'{"type": 5}',
     b'{"type": "message"}', b'{"done": true, "message": "x"}', b'{"choices": [{"delta": {"content": 5}}]}',
     b"[" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("content_type", [JSON, STREAM, LINES, ""])
def test_what_cannot_be_read_is_left_out(content_type: str, body: bytes) -> None:
    found = joined(content_type, b"data: " + body if content_type == STREAM else body)
    assert found.text == ""


def test_what_an_event_without_an_end_says_counts() -> None:
    assert joined(STREAM, EVENTS[0] + EVENTS[1].rstrip()).text == "Grü"
