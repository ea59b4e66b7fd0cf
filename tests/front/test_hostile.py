"""Bodies and requests that nobody should send: a clear refusal, and a server that lives."""

from __future__ import annotations

import gzip
import json

import pytest
import structlog.testing

from tests.front.conftest import House

BAD_BODIES = {
    "nothing": b"",
    "no JSON": b"hello",
    "an array": b"[]",
    "null": b"null",
    "cut short": b'{"model":"tiny"',
    "two values": b'{"model":"tiny"}{}',
    "model missing": b'{"messages":[]}',
    "model null": b'{"model":null}',
    "model a number": b'{"model":1}',
    "model an object": b'{"model":{"name":"tiny"}}',
    "half a character": b'{"model":"\\ud83d"}',
    "half a character elsewhere": b'{"model":"tiny","x":"\\ud83d"}',
    "a raw NUL": b'{"model":"ti\x00ny"}',
    "only NULs": b"\x00" * 1000,
    "bad UTF-8 in the name": b'{"model":"\xff"}',
    "deep nesting": b'{"model":"tiny","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep nesting of objects": b'{"x":' * 50_000 + b"1" + b"}" * 50_000,
    "deep nesting in stream": b'{"model":"tiny","stream":' + b"[" * 9_000 + b"]" * 9_000 + b"}",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_bad_body_is_a_400_in_the_envelope(house: House, body: bytes) -> None:
    worker = await house.worker()
    got = await house.chat(body)
    assert got.status == 400
    assert got.error["type"] == "invalid_request_error"
    assert set(got.error) == {"message", "type", "param", "code"}
    assert not worker.seen
    assert (await house.chat()).status == 200


async def test_missing_model_names_the_field(house: House) -> None:
    assert (await house.chat(b'{"messages":[]}')).error["param"] == "model"


async def test_last_of_equal_keys_counts(house: House) -> None:
    await house.worker()
    got = await house.chat(b'{"model":"nobody","model":"tiny"}')
    assert got.headers["x-swapper-model"] == "tiny"


@pytest.mark.parametrize("stream", ["null", '"yes"', "1", "{}"])
async def test_odd_stream_values_are_left_to_the_worker(house: House, stream: str) -> None:
    worker = await house.worker()
    body = f'{{"model":"tiny","stream":{stream}}}'.encode()
    assert (await house.chat(body)).status == 200
    assert worker.seen[0].body == body


@pytest.mark.parametrize(
    "name", ["nobody", "", "a" * 6_000_000, "x\u0000y", "\U0001f600", "../tiny"]
)
async def test_unknown_names_are_404(house: House, name: str) -> None:
    got = await house.chat(json.dumps({"model": name}).encode())
    assert got.status == 404
    assert got.error["code"] == "model_not_found"
    assert got.error["param"] == "model"
    assert len(got.body) < 1000


async def test_near_miss_is_named(house: House) -> None:
    got = await house.chat(b'{"model":"gpt-4o-mimi","stream":true}')
    assert got.status == 404
    assert "gpt-4o-mini" in str(got.error["message"])
    assert got.headers["content-type"] == "application/json"


async def test_body_over_the_limit_is_413(bare_house: House) -> None:
    await bare_house.open(body_limit=1000)
    await bare_house.worker()
    body = b'{"model":"tiny","x":"' + b"x" * 2000 + b'"}'
    for headers, sent in (({}, body), ({"content-encoding": "gzip"}, gzip.compress(body))):
        got = await bare_house.post("/v1/completions", sent, headers)
        assert got.status == 413
        assert got.error["code"] == "body_too_large"
    client = await bare_house.client()
    await client.send(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        b"7d0\r\n" + b"x" * 2000
    )
    assert (await client.head())[0] == 413


async def test_bomb_is_stopped_at_the_limit(bare_house: House) -> None:
    await bare_house.open(body_limit=1_000_000)
    bomb = gzip.compress(b" " * 200_000_000)
    got = await bare_house.post("/v1/completions", bomb, {"content-encoding": "gzip"})
    assert got.status == 413


async def test_broken_compression_is_400(house: House) -> None:
    packed = bytearray(gzip.compress(b'{"model":"tiny","x":"' + bytes(range(32, 90)) * 9 + b'"}'))
    packed[30:34] = b"\xff\xff\xff\xff"
    got = await house.post("/v1/completions", bytes(packed), {"content-encoding": "gzip"})
    assert got.status == 400


async def test_broken_chunks_are_400(house: House) -> None:
    client = await house.client()
    await client.send(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
    )
    assert (await client.head())[0] == 400
    assert (await house.ask("GET", "/health")).status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["TLS", "huge header", "length and chunks", "NUL in the path"],
)
async def test_bad_http_is_refused_without_a_trace(house: House, request_bytes: bytes) -> None:
    client = await house.client()
    with structlog.testing.capture_logs() as lines:
        await client.send(request_bytes)
        status, _ = await client.head()
    assert status == 400
    assert {line["event"] for line in lines} <= {"not an HTTP request"}
    assert "Traceback" not in (await client.reader.read()).decode()
    assert (await house.ask("GET", "/health")).status == 200
