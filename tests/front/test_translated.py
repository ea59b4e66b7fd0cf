"""Other dialects over real connections: statuses, keep-alives, breaks, clients that leave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from swapper.errors import Unavailable
from swapper.front.keys import ApiKey
from swapper.runtime.endpoint import Endpoint
from tests.front.conftest import House
from tests.front.dialects.streams import ANSWER, STREAM, delta, events, wire
from tests.front.fakes import EVENTS_HEAD, LAST_CHUNK, Got, Peer, answering, chunk, http, streaming


async def ask(house: House, headers: dict[str, str] | None = None, **fields: Any) -> Got:
    return await house.post("/v1/messages?beta=true", body(**fields), headers)


def body(**fields: Any) -> bytes:
    messages = [{"role": "user", "content": "hi"}]
    given = {"model": "tiny", "max_tokens": 9, "messages": messages, **fields}
    return json.dumps(given).encode()


def kinds(got: Got) -> list[str]:
    return [event["type"] for event in events(got.body)]


WHOLE_STREAM = [
    "message_start", "content_block_start", "content_block_delta", "content_block_stop",
    "message_delta", "message_stop",
]  # fmt: skip


async def test_a_whole_answer(house: House) -> None:
    worker = await house.worker(answering(http(json.dumps(ANSWER).encode())))
    got = await ask(house, {"anthropic-version": "2026-10-21", "x-request-id": "mine"})
    assert got.status == 200
    assert got.json["content"] == [{"type": "text", "text": "hello"}]
    assert got.headers["request-id"] == got.headers["x-request-id"] == "mine"
    assert got.headers["x-swapper-queue-ms"] == "250.0"
    seen = worker.seen[0]
    assert seen.target == "/v1/chat/completions"
    assert json.loads(seen.body)["messages"] == [{"role": "user", "content": "hi"}]
    assert json.loads(seen.body)["model"] == "tiny"
    assert "anthropic-version" not in seen.headers


async def test_a_foreign_server_gets_its_own_name_and_key(house: House) -> None:
    worker = await house.worker(answering(http(json.dumps(ANSWER).encode())))
    endpoint = Endpoint(
        socket_path=worker.path, upstream_model="up", headers={"authorization": "Bearer its-own"}
    )
    house.dispatcher.endpoints = [endpoint]
    got = await ask(house, {"x-api-key": "mine"}, model="gpt-4o-mini")
    assert got.json["model"] == "gpt-4o-mini"
    assert json.loads(worker.seen[0].body)["model"] == "up"
    assert worker.seen[0].headers["authorization"] == "bearer its-own"


@pytest.mark.parametrize("size", [1, 7, len(STREAM)])
async def test_a_stream_in_any_pieces(house: House, size: int) -> None:
    await house.worker(streaming(*(STREAM[i : i + size] for i in range(0, len(STREAM), size))))
    got = await ask(house, stream=True)
    assert got.headers["content-type"] == "text/event-stream"
    assert got.is_whole
    assert kinds(got) == WHOLE_STREAM
    assert events(got.body)[2]["delta"]["text"] == "hé"


async def test_a_server_that_does_not_stream(house: House) -> None:
    await house.worker(answering(http(json.dumps(ANSWER).encode())))
    got = await ask(house, stream=True)
    assert kinds(got) == WHOLE_STREAM
    assert events(got.body)[-2]["usage"]["output_tokens"] == 5


async def test_no_done_is_needed_after_a_reason(house: House) -> None:
    await house.worker(streaming(wire(delta(content="a"), delta("stop"), done=False)))
    assert kinds(await ask(house, stream=True)) == WHOLE_STREAM


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "kind"),
    [("400 No", "invalid_request_error"), ("503 Full", "overloaded_error"), ("429 Slow", "rate_limit_error"), ("500 Oh", "api_error")],
)  # fmt: skip
async def test_errors_of_workers_keep_their_status(
    house: House, status: str, kind: str, stream: bool
) -> None:
    error = http(b'{"error":{"message":"why"}}', status, extra="retry-after: 7\r\n")
    await house.worker(answering(error))
    got = await ask(house, {"x-request-id": "mine"}, stream=stream)
    assert got.status == int(status[:3])
    assert got.headers["retry-after"] == "7"
    assert got.json == {
        "type": "error",
        "error": {"type": kind, "message": "why"},
        "request_id": "mine",
    }


async def test_errors_of_swapper_in_the_same_words(bare_house: House) -> None:
    house = bare_house
    await house.open(api_keys=[ApiKey("me", "secret")], body_limit=2000)
    await house.worker()
    key = {"x-api-key": "secret"}
    assert (await ask(house)).status == 401
    assert (await ask(house)).error["type"] == "authentication_error"
    got = await ask(house, key, model="tini", stream=True)
    assert (got.status, got.error["type"]) == (404, "not_found_error")
    assert "tiny" in str(got.error["message"])
    got = await house.post("/v1/messages", b"{", key)
    assert (got.status, got.json["type"]) == (400, "error")
    got = await ask(house, key, system="x" * 3000)
    assert (got.status, got.error["type"]) == (413, "request_too_large")
    got = await house.ask("GET", "/v1/messages", b"", key)
    assert (got.status, got.json["type"]) == (405, "error")
    got = await house.post("/v1/messages/batches", b"{}", key)
    assert (got.status, got.error["type"]) == (404, "not_found_error")
    house.dispatcher.refusal = Unavailable("queue_full", "full", retry_after_s=2)
    got = await ask(house, key)
    assert (got.status, got.headers["retry-after"]) == (429, "2")


@pytest.mark.parametrize(
    "sent",
    [
        wire(delta(content="a"), {"error": {"message": "broke"}}, done=False),
        wire(delta(content="a"), done=False),
        wire(delta(content="a"), done=False) + b"data: {]\n\n",
        wire(delta(content="a"), {"choices": [5]}),
        wire(delta(content="a"), {"choices": [{"delta": {"tool_calls": [5]}}]}),
    ],
)
async def test_a_stream_that_fails_says_so(house: House, sent: bytes) -> None:
    await house.worker(streaming(sent))
    got = await ask(house, stream=True)
    found = kinds(got)
    assert found[:3] == WHOLE_STREAM[:3]
    assert found[-1] == "error"
    assert "message_stop" not in found
    assert got.is_whole


async def test_a_worker_that_dies_in_the_middle(house: House) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD, chunk(wire(delta(content="a"), done=False)))
        peer.reset()

    await house.worker(script)
    assert kinds(await ask(house, stream=True))[-1] == "error"


async def test_a_worker_that_dies_before_costs_a_second_try(house: House) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    await house.worker(script)
    await house.worker(streaming(STREAM))
    house.dispatcher.is_lost = True
    assert kinds(await ask(house, stream=True)) == WHOLE_STREAM
    assert house.dispatcher.arrivals == [None, 7.0]


async def test_whoever_waits_is_pinged(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01, keepalive_every_s=0.01)
    await house.worker(streaming(STREAM))
    house.dispatcher.gate.clear()
    client = await house.client()
    await client.begin("POST", "/v1/messages", body(stream=True), {"x-request-id": "mine"})
    status, headers = await client.head()
    assert status == 200
    assert headers["request-id"] == "mine"
    pieces = []
    async for piece in client.pieces(headers):
        pieces.append(piece)
        if len(pieces) == 2:
            house.dispatcher.gate.set()
    data = b"".join(pieces)
    assert b"\n\n: x-swapper-model=tiny" in data
    rest = events(b"".join(p + b"\n\n" for p in data.split(b"\n\n")[:-1] if not p.startswith(b":")))
    assert [e["type"] for e in rest if e["type"] != "ping"] == WHOLE_STREAM
    assert rest[1]["type"] == "ping"


async def test_what_fails_after_a_ping_is_an_event(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01, keepalive_every_s=5)
    await house.worker()
    house.dispatcher.gate.clear()
    client = await house.client()
    await client.begin("POST", "/v1/messages", body(stream=True))
    status, headers = await client.head()
    house.dispatcher.refusal = Unavailable("timeout", "too late", retry_after_s=1)
    house.dispatcher.gate.set()
    data = b"".join([piece async for piece in client.pieces(headers)])
    assert status == 200
    assert [e["type"] for e in events(data)] == ["ping", "error"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_place(house: House, stream: bool) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if stream:
            await peer.send(EVENTS_HEAD, chunk(wire(delta(content="a"), done=False)))
        await peer.gone()
        left.set()

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/messages", body(stream=stream))
    await house.dispatcher.until(held=1)
    if stream:
        await client.head()
    client.leave()
    await house.dispatcher.until(held=0)
    async with asyncio.timeout(30):
        await left.wait()


async def test_a_client_that_leaves_the_queue(house: House) -> None:
    await house.worker()
    house.dispatcher.gate.clear()
    client = await house.client()
    await client.begin("POST", "/v1/messages", body(stream=True))
    await house.dispatcher.until(waiting=1)
    client.leave()
    await house.dispatcher.until(waiting=0)


async def test_the_workers_connection_is_used_again(house: House) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(EVENTS_HEAD, chunk(STREAM), LAST_CHUNK)

    worker = await house.worker(script)
    for _ in range(3):
        assert kinds(await ask(house, stream=True)) == WHOLE_STREAM
    assert worker.num_connections == 1


async def test_a_response_is_kept_and_forgotten(house: House) -> None:
    await house.worker(answering(http(json.dumps(ANSWER).encode())))
    made = await house.post("/v1/responses", b'{"model":"tiny","input":"hi"}')
    assert made.status == 200
    path = f"/v1/responses/{made.json['id']}"
    assert (await house.ask("GET", path)).json == made.json
    assert (await house.ask("DELETE", path)).json["deleted"] is True
    got = await house.ask("GET", path)
    assert (got.status, got.error["type"]) == (404, "invalid_request_error")
    assert (await house.ask("PUT", path)).status == 405


async def test_whoever_waits_for_a_response_gets_events(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01, keepalive_every_s=0.01)
    await house.worker(streaming(STREAM))
    house.dispatcher.gate.clear()
    client = await house.client()
    await client.begin("POST", "/v1/responses", b'{"model":"tiny","input":"hi","stream":true}')
    _, headers = await client.head()
    data = b""
    async for piece in client.pieces(headers):
        data += piece
        if data.count(b"event: response.in_progress") == 3:
            house.dispatcher.gate.set()
    blocks = [block for block in data.split(b"\n\n")[:-1] if not block.startswith(b":")]
    found = events(b"".join(block + b"\n\n" for block in blocks))
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.completed"


async def test_models_in_anthropics_shape(house: House) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    got = await house.ask("GET", "/v1/models", b"", headers)
    assert [entry["id"] for entry in got.json["data"]] == ["tiny", "org/model:7b"]  # type: ignore[index, attr-defined]
    assert got.json["data"][0]["type"] == "model"  # type: ignore[index]
    assert got.json["has_more"] is False
    got = await house.ask("GET", "/v1/models/gpt-4o-mini", b"", headers)
    assert (got.json["id"], got.json["type"]) == ("gpt-4o-mini", "model")
    got = await house.ask("GET", "/v1/models/nope", b"", headers)
    assert (got.status, got.json["type"]) == (404, "error")


async def test_claude_code_finds_somebody_there(house: House) -> None:
    for path in ("/", "/api/hello"):
        assert (await house.ask("HEAD", path)).status == 200


@pytest.mark.parametrize("depth", [*range(20, 1100, 40), 5000, 50_000])
async def test_any_depth_is_answered(house: House, depth: int) -> None:
    """By a translation of it, or by a 400."""
    await house.worker(answering(http(json.dumps(ANSWER).encode())))
    opening, closing = b'[{"type":"search_result","content":', b"}]"
    content = opening * depth + b"[]" + closing * depth
    message = b'{"role":"user","content":%b}' % content
    got = await house.post(
        "/v1/messages", b'{"model":"tiny","max_tokens":9,"messages":[%b]}' % message
    )
    assert got.status in (200, 400)
    schema = b'{"a":' * depth + b"1" + b"}" * depth
    tool = b'{"type":"function","name":"f","parameters":%b}' % schema
    got = await house.post("/v1/responses", b'{"model":"tiny","input":"x","tools":[%b]}' % tool)
    assert got.status in (200, 400)
