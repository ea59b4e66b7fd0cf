"""Workers that misbehave: what the client is told, and what is tried again."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import pytest

from swapper.errors import Unavailable
from swapper.runtime.endpoint import Endpoint
from tests.front.conftest import House
from tests.front.fakes import (
    EVENTS_HEAD,
    LAST_CHUNK,
    PATIENCE_S,
    Peer,
    Script,
    answering,
    chunk,
    http,
    mirror,
)

STREAM = b'{"model":"tiny","stream":true}'


def breaking(*pieces: bytes, reset: bool = False) -> Script:
    """Send these pieces in answer to a request, then close or reset the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        if reset:
            peer.reset()

    return script


BROKEN_HEADS = {
    "closes without a word": b"",
    "closes within the status line": b"HTTP/1.1 20",
    "closes within the headers": b"HTTP/1.1 200 OK\r\ncontent-le",
    "closes before the body": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    "talks something else": b"SSH-2.0-OpenSSH_9.2\r\n",
    "sends two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "sends a bad chunk size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "sends a huge header": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    "switches protocols": b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "sends two answers": http(b"{}") + http(b"{}"),
}


@pytest.mark.parametrize("answer", BROKEN_HEADS.values(), ids=BROKEN_HEADS.keys())
async def test_worker_that_lives_but_breaks_off_is_a_502(house: House, answer: bytes) -> None:
    await house.worker(breaking(answer))
    got = await house.chat()
    assert got.status == 502
    assert got.error["code"] == "worker_lost"
    assert got.is_whole
    assert len(house.dispatcher.arrivals) == 1


@pytest.mark.parametrize("answer", BROKEN_HEADS.values(), ids=BROKEN_HEADS.keys())
async def test_worker_that_died_before_it_answered_is_replaced_once(
    house: House, answer: bytes
) -> None:
    house.dispatcher.is_lost = True
    await house.worker(breaking(answer))
    second = await house.worker()
    got = await house.chat()
    assert got.status == 200
    assert len(second.seen) == 1
    assert house.dispatcher.arrivals == [None, 7.0]


async def test_second_death_is_told(house: House) -> None:
    house.dispatcher.is_lost = True
    await house.worker(breaking(b""))
    got = await house.chat()
    assert got.status == 502
    assert got.headers["x-should-retry"] == "false"
    assert len(house.dispatcher.arrivals) == 2


async def test_worker_that_is_not_there(house: House) -> None:
    house.no_worker()
    got = await house.chat()
    assert (got.status, got.error["code"]) == (502, "worker_lost")
    house.dispatcher.is_lost = True
    house.dispatcher.endpoints.append(house.dispatcher.endpoints[0])
    await house.worker()
    house.dispatcher.arrivals.clear()
    house.dispatcher.endpoints = [house.dispatcher.endpoints[0], house.workers[0].endpoint]
    assert (await house.chat()).status == 200


async def test_worker_that_takes_no_connection_times_out(bare_house: House) -> None:
    await bare_house.open(connect_timeout_s=0.05)
    with socket.socket() as listener:  # its queue is full: connecting hangs
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        others = []
        for _ in range(8):
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
            others.append(other)
        bare_house.dispatcher.endpoints.append(Endpoint(host="127.0.0.1", port=port))
        got = await bare_house.chat()
        for other in others:
            other.close()
    assert got.status == 502


@pytest.mark.parametrize("reset", [False, True])
async def test_stream_that_breaks_says_so(house: House, reset: bool) -> None:
    await house.worker(breaking(EVENTS_HEAD, chunk(b"data: 1\n\n"), reset=reset))
    house.dispatcher.is_lost = True
    got = await house.chat(STREAM)
    assert got.status == 200 or reset  # a reset may take with it what was sent before
    if got.status == 200:
        assert got.is_whole
        first, last = [line for line in got.body.split(b"\n") if line]
        assert first == b"data: 1"
        assert b'"worker_lost"' in last
    assert b"[DONE]" not in got.body


async def test_half_a_line_is_not_sent_before_the_error(house: House) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD, chunk(b'data: {"a":1}\n\ndata: {"hal'))
        await go.wait()

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    _, headers = await client.head()
    pieces = client.pieces(headers)
    assert await anext(pieces) == b'data: {"a":1}\n\n'
    go.set()
    rest = b"".join([piece async for piece in pieces])
    assert rest.startswith(b'\ndata: {"error":')
    assert rest.endswith(b"\n\n")


async def test_bad_chunk_in_a_stream_is_an_error_event(house: House) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD, chunk(b"data: 1\n\n"))
        await go.wait()
        await peer.send(b"nonsense\r\n")

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    _, headers = await client.head()
    pieces = client.pieces(headers)
    await anext(pieces)
    go.set()
    assert b"worker_lost" in b"".join([piece async for piece in pieces])


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        + chunk(b"{"),
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
        b"transfer-encoding: chunked\r\n\r\n" + chunk(b"{"),
    ],
    ids=["length", "chunked", "packed events"],
)
async def test_body_that_breaks_is_never_whole(house: House, head: bytes) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        await go.wait()

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    status, headers = await client.head()
    assert status == 200
    go.set()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        async for _ in client.pieces(headers):
            pass


async def test_kept_connection_that_went_stale_is_replaced(house: House) -> None:
    """The worker answers once a connection, then closes as the second request comes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(b"{}"))
        await peer.reader.readexactly(1)  # the next request is on its way
        peer.reset()

    worker = await house.worker(script)
    for _ in range(4):
        assert (await house.chat()).status == 200
    assert worker.num_connections == 4
    assert house.dispatcher.arrivals == [None] * 4


async def test_connection_close_from_the_worker_is_heeded(house: House) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(b"{}", extra="connection: close\r\n"))

    worker = await house.worker(script)
    for _ in range(3):
        assert (await house.chat()).status == 200
    assert worker.num_connections == 3


async def test_body_framed_by_the_close(house: House) -> None:
    await house.worker(breaking(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nall of it"))
    got = await house.chat()
    assert (got.status, got.body, got.is_whole) == (200, b"all of it", True)


async def test_reset_of_a_body_framed_by_the_close_is_a_break(house: House) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nsome of it")
        await go.wait()
        linger = struct.pack("ii", 1, 0)  # closing sends a reset
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.reset()

    worker = await house.worker(script)
    async with await asyncio.start_server(worker._connected, "127.0.0.1", 0) as tcp:
        port = tcp.sockets[0].getsockname()[1]
        house.dispatcher.endpoints = [Endpoint(host="127.0.0.1", port=port)]
        client = await house.client()
        await client.begin("POST", "/v1/completions", b'{"model":"tiny"}')
        _, headers = await client.head()
        pieces = client.pieces(headers)
        assert await anext(pieces) == b"some of it"
        go.set()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            async for _ in pieces:
                pass


async def test_interim_answers_are_skipped(house: House) -> None:
    await house.worker(
        answering(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
            + http(b"{}")
        )
    )
    for _ in range(2):
        got = await house.chat()
        assert (got.status, got.body) == (200, b"{}")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n",
    ],
)
async def test_answers_without_a_body(house: House, answer: bytes) -> None:
    await house.worker(answering(answer))
    client = await house.client()
    for _ in range(2):
        got = await client.ask("GET", "/upstream/tiny/page")
        assert got.status in (204, 304)


async def test_trickle_is_passed_as_it_comes(house: House) -> None:
    whole = EVENTS_HEAD + chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n") + LAST_CHUNK

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for byte in whole:
                await peer.send(bytes([byte]))

    await house.worker(script)
    got = await house.chat(STREAM)
    assert (got.status, got.body, got.is_whole) == (200, b"data: 1\n\ndata: 2\n\n", True)


async def test_answer_before_the_request_was_read(house: House) -> None:
    """A worker that refuses a large body early: its answer counts."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(http(b'{"error":{}}', "413 Too Large", extra="connection: close\r\n"))
        await asyncio.wait_for(peer.reader.read(), PATIENCE_S)

    await house.worker(script)
    got = await house.chat(b'{"model":"tiny","x":"' + b"x" * 3_000_000 + b'"}')
    assert got.status == 413


async def test_talk_out_of_turn_closes_the_connection(house: House) -> None:
    go, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(b"{}"))
        await go.wait()
        await peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await peer.gone()
        closed.set()

    worker = await house.worker(script)
    assert (await house.chat()).status == 200
    go.set()
    async with asyncio.timeout(PATIENCE_S):
        await closed.wait()
    worker.script = mirror
    assert (await house.chat()).status == 200


async def test_break_within_an_answer_is_not_taken_for_a_stale_connection(house: House) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(b"{}"))
        await peer.request()
        await peer.send(b"HTTP/1.1 200 O")

    worker = await house.worker(script)
    assert (await house.chat()).status == 200
    assert (await house.chat()).status == 502
    assert worker.num_connections == 1


async def test_connection_the_worker_will_close_is_closed_here(house: House) -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(http(b"{}", extra="connection: close\r\n"))
        await peer.gone()
        closed.set()

    await house.worker(script)
    assert (await house.chat()).status == 200
    async with asyncio.timeout(PATIENCE_S):
        await closed.wait()


# ---------------------------------------------------------------- clients that leave


async def test_client_that_leaves_while_it_waits_frees_its_place(house: House) -> None:
    house.dispatcher.gate.clear()
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    await house.dispatcher.until(waiting=1)
    client.leave()
    await house.dispatcher.until(waiting=0)


async def test_client_that_leaves_before_the_answer_stops_the_worker(house: House) -> None:
    stopped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()
        stopped.set()

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", b'{"model":"tiny"}')
    await house.dispatcher.until(held=1)
    client.leave()
    async with asyncio.timeout(PATIENCE_S):
        await stopped.wait()
    await house.dispatcher.until(held=0)


async def test_client_that_leaves_a_stream_stops_the_worker(house: House) -> None:
    stopped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD, chunk(b"data: 1\n\n"))
        await peer.gone()
        stopped.set()

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    _, headers = await client.head()
    await anext(client.pieces(headers))
    client.leave()
    async with asyncio.timeout(PATIENCE_S):
        await stopped.wait()
    await house.dispatcher.until(held=0)


async def test_client_that_leaves_while_uploading(house: House) -> None:
    await house.worker()
    client = await house.client()
    await client.send(b'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{"mo')
    client.leave()
    assert (await house.chat()).status == 200


# ---------------------------------------------------------------- waiting long


async def test_waiting_stream_is_kept_alive_then_answered(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01, keepalive_every_s=0.01)
    house.dispatcher.gate.clear()
    await house.worker(answering(EVENTS_HEAD + chunk(b"data: 1\n\n") + LAST_CHUNK))
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    status, headers = await client.head()
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    pieces = client.pieces(headers)
    for _ in range(3):
        assert await anext(pieces) == b": waiting\n\n"
    house.dispatcher.gate.set()
    rest = b"".join([piece async for piece in pieces])
    events = [event for event in rest.split(b"\n\n") if event and event != b": waiting"]
    assert events[0].startswith(b": x-swapper-model=tiny")
    assert b"x-swapper-load-ms=125.0" in events[0]
    assert events[1:] == [b"data: 1"]


async def test_timings_stand_in_the_last_chunk_of_a_stream_that_waited(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01, keepalive_every_s=0.01)
    house.dispatcher.gate.clear()
    told = b'data: {"choices":[{"delta":{"content":"\\"finish_reason\\":\\"x"},"finish_reason":null}]}\n\n'
    last = b'data: {"choices":[{"delta":{},"finish_reason": "stop"}],"n":1.50}\n\n'
    body = told + last + b"data: [DONE]\n\n"
    halves = chunk(body[: len(told) + 9]) + chunk(body[len(told) + 9 :])
    await house.worker(answering(EVENTS_HEAD + halves + LAST_CHUNK))
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    _, headers = await client.head()
    house.dispatcher.gate.set()
    events = b"".join([piece async for piece in client.pieces(headers)]).split(b"\n\n")
    told_again, ended, done = [event for event in events if event.startswith(b"data: ")]
    assert told_again == told.strip()
    assert done == b"data: [DONE]"
    timings = b'"swapper":{"queue_ms":250.0,"load_ms":125.0,"swap_ms":0.0}'
    assert ended == last.strip()[:-1] + b"," + timings + b"}"


async def test_loading_text_says_why_a_chat_waits(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01, keepalive_every_s=0.01, loading_text=True)
    house.dispatcher.gate.clear()
    await house.worker(answering(EVENTS_HEAD + chunk(b"data: 1\n\n") + LAST_CHUNK))
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    _, headers = await client.head()
    pieces = client.pieces(headers)
    said = json.loads((await anext(pieces)).removeprefix(b"data: "))
    assert said["object"] == "chat.completion.chunk"
    delta = said["choices"][0]["delta"]
    assert delta == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Making room for tiny\n",
    }
    assert await anext(pieces) == b": waiting\n\n"  # nothing new to say
    house.dispatcher.gate.set()
    rest = b"".join([piece async for piece in pieces])
    assert rest.endswith(b"data: 1\n\n")


async def test_failure_after_a_heartbeat_is_an_event(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01)
    house.dispatcher.gate.clear()
    house.dispatcher.refusal = Unavailable(
        "load_failed", "no memory", retry_after_s=3, cause="out_of_memory"
    )
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    _, headers = await client.head()
    house.dispatcher.gate.set()
    body = b"".join([piece async for piece in client.pieces(headers)])
    assert b'"code":"load_failed"' in body
    assert b"[DONE]" not in body


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http(b'{"error": {"message":\n"x"}}', "400 Bad"), b'data: {"error":{"message":"x"}}\n\n'),
        (http(b'{"id":1}'), b'data: {"id":1}\n\ndata: [DONE]\n\n'),
        (http(b"oh no", "500 X"), b'"worker_lost"'),
    ],
    ids=["refused", "no stream", "no JSON"],
)
async def test_answers_of_other_kinds_after_a_heartbeat(
    bare_house: House, answer: bytes, expected: bytes
) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01)
    house.dispatcher.gate.clear()
    house.dispatcher.is_lost = True  # but it has answered: nothing is tried again
    await house.worker(answering(answer))
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    _, headers = await client.head()
    house.dispatcher.gate.set()
    assert expected in b"".join([piece async for piece in client.pieces(headers)])
    assert house.dispatcher.arrivals == [None]


async def test_worker_that_dies_after_a_heartbeat_is_still_replaced(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01)
    house.dispatcher.is_lost = True
    go = asyncio.Event()

    async def dies(peer: Peer) -> None:
        await peer.request()
        await go.wait()

    await house.worker(dies)
    await house.worker(answering(EVENTS_HEAD + chunk(b"data: 1\n\n") + LAST_CHUNK))
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    _, headers = await client.head()
    go.set()
    body = b"".join([piece async for piece in client.pieces(headers)])
    assert b"data: 1\n\n" in body
    assert b"error" not in body
    assert house.dispatcher.arrivals == [None, 7.0]


async def a_beat_later(house: House) -> None:
    """Return once a heartbeat that began now has beaten: earlier ones would have, too."""
    house.dispatcher.gate.clear()
    other = await house.client()
    await other.begin("POST", "/v1/chat/completions", STREAM)
    await other.head()
    other.leave()
    await house.dispatcher.until(waiting=0)
    house.dispatcher.gate.set()


async def test_no_heartbeat_comes_after_a_refusal(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.02)
    house.dispatcher.refusal = Unavailable("queue_full", "full", retry_after_s=1)
    client = await house.client()
    assert (await client.ask("POST", "/v1/chat/completions", STREAM)).status == 429
    await a_beat_later(house)
    got = await client.ask("GET", "/health")
    assert got.json == {"status": "ok"}


async def test_no_heartbeat_comes_between_events(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.02)
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD, chunk(b"data: 1\n\n"))
        await go.wait()
        await peer.send(chunk(b"data: 2\n\n"), LAST_CHUNK)
        await peer.gone()

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", "/v1/chat/completions", STREAM)
    _, headers = await client.head()
    pieces = client.pieces(headers)
    first = await anext(pieces)
    await a_beat_later(house)
    go.set()
    events = (first + b"".join([piece async for piece in pieces])).split(b"\n\n")
    assert events[-3:] == [b"data: 1", b"data: 2", b""]


async def test_streams_of_sound_get_no_comments(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.02)
    house.dispatcher.gate.clear()
    await house.worker(answering(http(b"RIFF", content_type="audio/wav")))
    client = await house.client()
    await client.begin("POST", "/v1/audio/speech", STREAM)
    await house.dispatcher.until(waiting=1)
    other = await house.client()
    await other.begin("POST", "/v1/chat/completions", STREAM)
    await other.head()
    house.dispatcher.gate.set()
    assert (await client.answer()).body == b"RIFF"
