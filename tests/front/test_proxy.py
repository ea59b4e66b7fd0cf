"""Requests that go well: what reaches the worker, what reaches the client."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
import structlog.testing

from swapper.runtime.endpoint import Endpoint
from tests.front.conftest import House
from tests.front.fakes import EVENTS_HEAD, LAST_CHUNK, Peer, answering, chunk, http


async def test_body_and_path_reach_the_worker_unchanged(house: House) -> None:
    worker = await house.worker()
    body = b'{ "model" : "tiny",\t"messages":[{"content":"\xc3\xa9 \\u00e9"}], "x": 1.0e5 }'
    got = await house.post("/v1/chat/completions?beta=true", body)
    assert got.status == 200
    assert worker.seen[0].body == body
    assert worker.seen[0].target == "/v1/chat/completions?beta=true"


async def test_alias_goes_to_its_model(house: House) -> None:
    await house.worker()
    got = await house.chat(b'{"model":"gpt-4o-mini"}')
    assert got.headers["x-swapper-model"] == "tiny"
    assert json.loads(str(got.json["body"])) == {"model": "gpt-4o-mini"}


async def test_other_v1_paths_go_to_the_worker_too(house: House) -> None:
    worker = await house.worker()
    for path in ("/v1/rerank", "/v1/moderations", "/v1/audio/speech", "/v1/embeddings"):
        assert (await house.post(path, b'{"model":"tiny"}')).status == 200
    assert [seen.target for seen in worker.seen][:2] == ["/v1/rerank", "/v1/moderations"]


async def test_clients_secrets_and_hop_by_hop_headers_end_here(house: House) -> None:
    worker = await house.worker()
    headers = {
        "authorization": "Bearer secret",
        "x-api-key": "secret",
        "connection": "keep-alive, x-private",
        "x-private": "1",
        "te": "trailers",
        "x-swapper-key-id": "forged",
        "x-stainless-lang": "python",
        "user-agent": "test",
    }
    await house.post("/v1/chat/completions", b'{"model":"tiny"}', headers)
    seen = worker.seen[0].headers
    assert seen["x-stainless-lang"] == "python"
    assert seen["user-agent"] == "test"
    assert seen["host"] == "localhost"
    for name in ("authorization", "x-api-key", "connection", "x-private", "te", "x-swapper-key-id"):
        assert name not in seen


async def test_answers_say_who_gave_them_and_how_long_it_took(house: House) -> None:
    await house.worker(answering(http(b"{}", extra="x-request-id: worker's\r\nx-own: 1\r\n")))
    got = await house.post("/v1/chat/completions", b'{"model":"tiny"}', {"x-request-id": "mine-1"})
    assert got.headers["x-request-id"] == "mine-1"
    assert got.headers["x-own"] == "1"
    assert got.headers["x-swapper-model"] == "tiny"
    assert got.headers["x-swapper-engine"] == "echo"
    assert got.headers["x-swapper-queue-ms"] == "250.0"
    assert got.headers["x-swapper-load-ms"] == "125.0"
    assert got.headers["x-swapper-swap-ms"] == "0.0"


async def test_request_ids_are_made_where_none_is_fit(house: House) -> None:
    worker = await house.worker()
    ids = {(await house.chat()).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    got = await house.post("/v1/completions", b'{"model":"tiny"}', {"x-request-id": "with space"})
    assert " " not in got.headers["x-request-id"]
    assert worker.seen[-1].headers["x-request-id"] == got.headers["x-request-id"]


@pytest.mark.parametrize(
    "status", ["201 Created", "400 Bad Request", "429 Slow", "500 Oh", "404 X"]
)
async def test_any_status_passes_through(house: House, status: str) -> None:
    await house.worker(answering(http(b'{"error":{"message":"mine"}}', status)))
    got = await house.chat()
    assert got.status == int(status[:3])
    assert got.error == {"message": "mine"}


async def test_stream_arrives_piece_by_piece(house: House) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD, chunk(b"data: 1\n\n"))
        await go.wait()
        await peer.send(chunk(b"data: 2\n\n"), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
        await peer.gone()

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", b'{"model":"tiny","stream":true}')
    status, headers = await client.head()
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    pieces = client.pieces(headers)
    assert await anext(pieces) == b"data: 1\n\n"
    go.set()
    assert b"".join([piece async for piece in pieces]) == b"data: 2\n\ndata: [DONE]\n\n"


async def test_half_lines_wait_for_their_other_half(house: House) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD, chunk(b"data: \xc3"), chunk(b"\xa9\n"), chunk(b"\ndata: 2"))
        await peer.send(LAST_CHUNK)
        await peer.gone()

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", b'{"model":"tiny","stream":true}')
    _, headers = await client.head()
    pieces = [piece async for piece in client.pieces(headers)]
    assert b"".join(pieces) == b"data: \xc3\xa9\n\ndata: 2"
    for piece in pieces:
        piece.decode()


async def test_connections_to_worker_and_client_are_kept(house: House) -> None:
    worker = await house.worker()
    client = await house.client()
    for _ in range(50):
        got = await client.ask("POST", "/v1/completions", b'{"model":"tiny"}')
        assert got.status == 200
    assert worker.num_connections == 1


async def test_many_at_once_each_get_their_own(house: House) -> None:
    await house.worker()

    async def one(number: int) -> None:
        body = json.dumps({"model": "tiny", "number": number}).encode()
        got = await house.post("/v1/completions", body)
        assert json.loads(str(got.json["body"]))["number"] == number

    await asyncio.gather(*(one(number) for number in range(60)))


async def test_endpoint_decides_on_name_prefix_and_headers(house: House) -> None:
    worker = await house.worker()
    house.dispatcher.endpoints = [
        Endpoint(
            socket_path=worker.path,
            prefix="/api",
            headers={"Authorization": "Bearer theirs"},
            upstream_model="org/real",
        )
    ]
    await house.post(
        "/v1/chat/completions", b'{"model":"tiny","n":1}', {"authorization": "Bearer mine"}
    )
    seen = worker.seen[0]
    assert seen.target == "/api/v1/chat/completions"
    assert seen.headers["authorization"] == "bearer theirs"
    assert json.loads(seen.body) == {"model": "org/real", "n": 1}


async def test_compressed_body_goes_on_plain(house: House) -> None:
    worker = await house.worker()
    body = b'{"model":"tiny"}'
    got = await house.post("/v1/completions", gzip.compress(body), {"content-encoding": "gzip"})
    assert got.status == 200
    assert worker.seen[0].body == body
    assert "content-encoding" not in worker.seen[0].headers


async def test_expect_100_continue_is_answered(house: House) -> None:
    await house.worker()
    client = await house.client()
    body = b'{"model":"tiny"}'
    await client.send(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    status, _ = await client.head()
    assert status == 100
    await client.send(body)
    assert (await client.answer()).status == 200


async def test_chunked_request_body(house: House) -> None:
    worker = await house.worker()
    client = await house.client()
    await client.send(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        + chunk(b'{"model":')
        + chunk(b'"tiny"}')
        + LAST_CHUNK
    )
    assert (await client.answer()).status == 200
    assert worker.seen[0].body == b'{"model":"tiny"}'


async def test_http_1_0_client_gets_a_stream_until_the_close(house: House) -> None:
    await house.worker(answering(EVENTS_HEAD + chunk(b"data: 1\n\n") + LAST_CHUNK))
    client = await house.client()
    body = b'{"model":"tiny","stream":true}'
    await client.send(
        b"POST /v1/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )
    got = await client.answer()
    assert got.headers["connection"] == "close"
    assert "transfer-encoding" not in got.headers
    assert got.body == b"data: 1\n\n"


async def test_closing_is_announced_and_done(house: House) -> None:
    await house.worker()
    client = await house.client()
    got = await client.ask("POST", "/v1/completions", b'{"model":"tiny"}', {"connection": "close"})
    assert got.headers["connection"] == "close"
    assert await client.closed()


async def test_large_bodies_pass_both_ways(house: House) -> None:
    worker = await house.worker()
    text = "x" * 6_000_000
    got = await house.chat(json.dumps({"model": "tiny", "text": text}).encode())
    assert got.status == 200
    assert len(worker.seen[0].body) > 6_000_000
    assert len(got.body) > 6_000_000


async def test_slow_client_holds_the_worker_back(house: House) -> None:
    """A worker that writes without end is not read faster than the client reads."""
    sent = 0
    line = b"data: " + b"x" * 65_000 + b"\n\n"
    stuck = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(EVENTS_HEAD)
        for _ in range(2_000):
            peer.writer.write(chunk(line))
            sent += 1
            try:
                await asyncio.wait_for(peer.writer.drain(), 1.0)
            except TimeoutError:
                stuck.set()
                await peer.writer.drain()
        await peer.send(LAST_CHUNK)

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/completions", b'{"model":"tiny","stream":true}')
    _, headers = await client.head()
    async with asyncio.timeout(30):
        await stuck.wait()
    assert sent < 1_000
    total = 0
    async for piece in client.pieces(headers):
        total += len(piece)
    assert total == 2_000 * len(line)


async def test_one_line_a_request_without_its_words(house: House) -> None:
    await house.worker()
    with structlog.testing.capture_logs() as lines:
        await house.chat(b'{"model":"gpt-4o-mini","messages":[{"content":"my secret"}]}')
    (line,) = lines
    assert line["event"] == "request"
    assert line["log_level"] == "info"
    assert (line["model"], line["status"], line["worker"]) == ("tiny", 200, "tiny#1")
    assert (line["queue_ms"], line["load_ms"]) == (250.0, 125.0)
    assert line["bytes_in"] == 60
    assert "secret" not in repr(line)
