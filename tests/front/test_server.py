"""The routes around the hot path, keys, and the end of the server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from swapper.config import Card
from swapper.config.listen import Listen
from swapper.core.registry import ModelSpec, Variant
from swapper.core.worker import WorkerState
from swapper.errors import RefusalKind, Unavailable
from swapper.front.cards import context_of
from swapper.front.keys import ApiKey
from swapper.front.metrics import RECENT
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.placement import WorkerFacts
from swapper.runtime.views import DeviceView, Snapshot, WorkerView
from tests.front.conftest import House
from tests.front.fakes import EVENTS_HEAD, LAST_CHUNK, PATIENCE_S, Peer, chunk, http, view

CHAT = "/v1/chat/completions"
ASK = b'{"model":"tiny"}'


async def test_hello_and_health(house: House) -> None:
    for method in ("GET", "HEAD"):
        assert (await house.ask(method, "/")).status == 200
        assert (await house.ask(method, "/health")).status == 200
    assert (await house.ask("GET", "/health")).json == {"status": "ok"}


async def test_models_are_listed_without_loading_any(house: House) -> None:
    house.dispatcher.view = Snapshot((view("tiny", "starting"),), {})
    house.dispatcher.known["tiny"] = WorkerFacts(context=2048)
    listed = (await house.ask("GET", "/v1/models")).json
    assert listed["object"] == "list"
    first, second = listed["data"]  # type: ignore[misc]
    assert isinstance(first.pop("created"), int)
    assert first == {
        "id": "tiny",
        "object": "model",
        "owned_by": "swapper",
        "aliases": ["gpt-4o-mini"],
        "engine": "echo",
        "state": "starting",
        "context_length": 2048,
    }
    assert second["state"] == "stopped"
    assert "context_length" not in second
    assert not house.dispatcher.arrivals


async def test_the_context_is_known_before_any_load(house: House) -> None:
    assert house.front is not None
    house.front.set_cards({"org/model:7b": Card(context=4096)})
    assert (await house.ask("GET", "/v1/models/org/model:7b")).json["context_length"] == 4096
    house.dispatcher.known["org/model:7b"] = WorkerFacts(context=2048)
    assert (await house.ask("GET", "/v1/models/org/model:7b")).json["context_length"] == 2048
    spec = ModelSpec("planned", "llamacpp", (Variant({}, {"context": 512}),))
    assert context_of(spec, Card(context=4096), None) == 512


async def test_what_sees_is_known_before_any_load(house: House) -> None:
    assert house.front is not None
    place = "/v1/models/org/model:7b"
    assert "input_modalities" not in (await house.ask("GET", place)).json
    house.front.set_cards({"org/model:7b": Card(sees=True)})
    assert (await house.ask("GET", place)).json["input_modalities"] == ["text", "image"]
    house.dispatcher.known["org/model:7b"] = WorkerFacts(capabilities=("chat",))
    assert "input_modalities" not in (await house.ask("GET", place)).json


@pytest.mark.parametrize("path", ["org/model:7b", "org%2Fmodel%3A7b"])
async def test_one_model_by_name(house: House, path: str) -> None:
    assert (await house.ask("GET", f"/v1/models/{path}")).json["id"] == "org/model:7b"


async def test_one_model_by_alias_and_unknown(house: House) -> None:
    assert (await house.ask("GET", "/v1/models/gpt-4o-mini")).json["engine"] == "echo"
    got = await house.ask("GET", "/v1/models/nobody")
    assert (got.status, got.error["code"]) == (404, "model_not_found")


async def test_running_shows_workers_and_who_waits(house: House) -> None:
    house.dispatcher.view = Snapshot(
        (view("tiny", idle_s=1.5, expires_in_s=600.0),), {"tiny": 2, "org/model:7b": 1}
    )
    tiny, other = (await house.ask("GET", "/running")).json["running"]  # type: ignore[misc]
    assert tiny == {
        "model": "tiny",
        "state": "ready",
        "engine": "echo",
        "worker": "tiny#1",
        "pid": 4242,
        "in_flight": 1,
        "waiting": 2,
        "memory": {"estimated": {"host": 100}, "measured": {"host": 90}},
        "idle_s": 1.5,
        "expires_in_s": 600.0,
        "progress": 1.0,
        "ttl": 600.0,
        "pin": False,
    }
    assert (other["model"], other["state"], other["waiting"]) == ("org/model:7b", "waiting", 1)
    assert set(other) == set(tiny)


async def test_load_and_unload(house: House) -> None:
    got = await house.post("/swapper/v1/models/org/model:7b/load", b"")
    assert got.status == 202
    assert house.dispatcher.loads == ["org/model:7b"]
    house.dispatcher.view = Snapshot((view("tiny"),), {})
    assert (await house.post("/swapper/v1/models/gpt-4o-mini/load", b"")).status == 200
    got = await house.post("/swapper/v1/models/gpt-4o-mini/unload", b"")
    assert (got.status, got.json["state"]) == (200, "stopped")
    assert house.dispatcher.unloads == ["tiny"]
    house.dispatcher.can_unload = False
    got = await house.post("/swapper/v1/models/tiny/unload", b"")
    assert (got.status, got.error["code"]) == (503, "timeout")
    assert (await house.post("/swapper/v1/models/nobody/load", b"")).status == 404


async def test_pin_and_unpin(house: House) -> None:
    got = await house.post("/swapper/v1/models/gpt-4o-mini/pin", b"")
    assert (got.status, got.json) == (200, {"model": "tiny", "pin": True})
    got = await house.post("/swapper/v1/models/org/model:7b/unpin", b"")
    assert (got.status, got.json) == (200, {"model": "org/model:7b", "pin": False})
    assert house.dispatcher.pins == [("tiny", True), ("org/model:7b", False)]


@pytest.mark.parametrize(
    ("worker", "after", "status"),
    [
        (view("tiny", can_sleep=True), WorkerState.SLEEPING, 200),
        (view("tiny", can_sleep=True), WorkerState.WAKING, 200),
        (view("tiny", "sleeping", can_sleep=True), WorkerState.SLEEPING, 200),
        (view("tiny", can_sleep=True), WorkerState.DRAINING, 503),
        (view("tiny", can_sleep=True), WorkerState.READY, 409),
        (view("tiny", can_sleep=True), WorkerState.STOPPING, 409),
        (view("tiny", can_sleep=True), None, 409),
        (view("tiny", "starting"), WorkerState.SLEEPING, 409),
        (view("tiny"), WorkerState.SLEEPING, 409),
        (view("org/model:7b", can_sleep=True), WorkerState.SLEEPING, 409),
    ],
)
async def test_sleep(house: House, worker: WorkerView, after: WorkerState, status: int) -> None:
    house.dispatcher.view = Snapshot((worker,), {})
    house.dispatcher.state_after_sleep = after
    got = await house.post("/swapper/v1/models/tiny/sleep", b"")
    assert got.status == status
    assert status != 200 or got.json == {"model": "tiny", "state": after.value}
    assert status != 409 or got.error["code"] == "conflict"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/nowhere", 404),
        ("GET", "/v1/nowhere", 404),
        ("GET", "/swapper/v1/models/tiny/dance", 404),
        ("GET", "/swapper/v1/models/load", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/models/tiny", 405),
        ("POST", "/health", 405),
        ("GET", "/swapper/v1/models/tiny/unload", 405),
        ("GET", "/swapper/v1/models/tiny/pin", 405),
    ],
)
async def test_wrong_paths_and_methods(house: House, method: str, path: str, status: int) -> None:
    got = await house.ask(method, path, ASK if method == "POST" else b"")
    assert got.status == status
    assert got.error["type"] == "invalid_request_error"
    assert ("allow" in got.headers) == (status == 405)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("queue_full", 429),
        ("timeout", 503),
        ("load_failed", 503),
        ("too_large", 503),
        ("unloaded", 503),
        ("shutting_down", 503),
    ],
)
async def test_refusals(house: House, kind: RefusalKind, status: int) -> None:
    house.dispatcher.refusal = Unavailable(kind, "not now", retry_after_s=2.2, cause="bad_file")
    got = await house.chat(b'{"model":"tiny","stream":true}')
    assert got.status == status
    assert got.headers["retry-after"] == "3"
    assert got.error["code"] == kind
    assert got.error["cause"] == "bad_file"
    assert got.error["message"] == "not now"


async def test_fault_inside_is_a_500_that_tells_nothing(house: House) -> None:
    house.dispatcher.endpoints = []  # the fake trips over it
    got = await house.chat()
    assert got.status == 500
    assert "list index" not in got.body.decode()
    assert "Traceback" not in got.body.decode()


# ---------------------------------------------------------------- /upstream


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/upstream/tiny/a/b?c=d&e", "/a/b?c=d&e"),
        ("/upstream/tiny/", "/"),
        ("/upstream/org/model:7b/v1/x%20y", "/v1/x%20y"),
        ("/upstream/org%2Fmodel:7b/slots", "/slots"),
        ("/upstream/gpt-4o-mini/props", "/props"),
    ],
)
async def test_upstream_paths(house: House, path: str, expected: str) -> None:
    await house.worker()
    for method in ("GET", "DELETE", "POST", "PATCH"):
        body = b"\x00any \xff bytes" if method == "POST" else b""
        got = await house.ask(method, path, body)
        assert got.json["target"] == expected
        assert got.json["method"] == method


async def test_upstream_takes_the_longest_name(bare_house: House) -> None:
    house = bare_house
    house.dispatcher.registry = type(house.dispatcher.registry)(
        {name: ModelSpec(name, "echo") for name in ("a", "a/b")}, budgets={}
    )
    await house.open()
    await house.worker()
    got = await house.ask("GET", "/upstream/a/b/c")
    assert got.headers["x-swapper-model"] == "a/b"
    got = await house.ask("GET", "/upstream/a/c")
    assert (got.headers["x-swapper-model"], got.json["target"]) == ("a", "/c")


async def test_upstream_without_a_slash_and_unknown(house: House) -> None:
    got = await house.ask("GET", "/upstream/tiny?x=1")
    assert (got.status, got.headers["location"]) == (307, "/upstream/tiny/?x=1")
    assert (await house.ask("GET", "/upstream/nobody/x")).status == 404
    assert (await house.ask("GET", "/upstream/")).status == 404


async def test_head_to_upstream(house: House) -> None:
    await house.worker()
    client = await house.client()
    for _ in range(3):
        got = await client.ask("HEAD", "/upstream/tiny/page")
        assert got.status == 200


# ---------------------------------------------------------------- keys

KEYS = {"api_keys": [ApiKey("ann", "sesame"), ApiKey("bob", "s3cret", priority=5)]}


@pytest.mark.parametrize(
    ("headers", "holder"),
    [
        ({"authorization": "Bearer sesame"}, "ann"),
        ({"authorization": "bearer  s3cret"}, "bob"),
        ({"x-api-key": "s3cret"}, "bob"),
        ({}, None),
        ({"authorization": "Bearer "}, None),
        ({"authorization": "Bearer sesam"}, None),
        ({"authorization": "Bearer sesame\xff"}, None),
        ({"authorization": "Basic sesame"}, None),
        ({"x-api-key": ""}, None),
    ],
)
async def test_keys(bare_house: House, headers: dict[str, str], holder: str | None) -> None:
    await bare_house.open(**KEYS)
    worker = await bare_house.worker()
    got = await bare_house.post(CHAT, ASK, headers)
    if holder is None:
        assert (got.status, got.error["code"]) == (401, "invalid_api_key")
        assert got.headers["www-authenticate"] == "bearer"
    else:
        assert got.status == 200
        assert worker.seen[0].headers["x-swapper-key-id"] == holder
        assert bare_house.dispatcher.keys == [(holder, 5 if holder == "bob" else 0)]


async def test_keys_can_be_replaced(bare_house: House) -> None:
    await bare_house.open(**KEYS)
    await bare_house.worker()
    assert bare_house.front is not None
    bare_house.front.set_keys([ApiKey("cleo", "new")])
    assert (await bare_house.post(CHAT, ASK, {"x-api-key": "sesame"})).status == 401
    assert (await bare_house.post(CHAT, ASK, {"x-api-key": "new"})).status == 200
    bare_house.front.set_keys([])
    assert (await bare_house.post(CHAT, ASK)).status == 200
    assert bare_house.dispatcher.keys[-1] == ("", 0)


async def test_everything_but_health_asks_for_a_key(bare_house: House) -> None:
    await bare_house.open(**KEYS)
    assert (await bare_house.ask("GET", "/health")).status == 200
    for path in ("/", "/v1/models", "/running", "/logs", "/metrics", "/upstream/tiny/", "/x"):
        assert (await bare_house.ask("GET", path)).status == 401
    assert (await bare_house.post("/swapper/v1/models/tiny/unload", b"")).status == 401
    assert not bare_house.dispatcher.unloads


# ---------------------------------------------------------------- logs and metrics


async def test_logs_of_one_and_of_all(house: House) -> None:
    house.dispatcher.logs.append("tiny", "one")
    house.dispatcher.logs.append("org/model:7b", "two")
    got = await house.ask("GET", "/logs?model=tiny")
    assert got.headers["content-type"].startswith("text/plain")
    assert got.body == b"one\n"
    assert (await house.ask("GET", "/logs")).body == b"[tiny] one\n[org/model:7b] two\n"
    assert (await house.ask("GET", "/logs?model=nobody")).status == 404


async def test_logs_can_be_followed_until_the_end(house: House) -> None:
    house.dispatcher.logs.append("tiny", "old")
    client = await house.client()
    await client.begin("GET", "/logs?model=gpt-4o-mini&follow=1")
    _, headers = await client.head()
    pieces = client.pieces(headers)
    assert await anext(pieces) == b"old\n"
    house.dispatcher.logs.append("tiny", "new")
    assert await anext(pieces) == b"new\n"
    assert house.front is not None
    assert await house.front.close(PATIENCE_S)
    assert [piece async for piece in pieces] == []
    house.front = None


async def test_llama_swaps_users_unload_and_read_logs_as_they_are_used_to(house: House) -> None:
    house.dispatcher.view = Snapshot((view("tiny"), view("org/model:7b")), {})
    assert (await house.ask("GET", "/unload")).body == b"OK"
    assert sorted(house.dispatcher.unloads) == ["org/model:7b", "tiny"]
    house.dispatcher.unloads.clear()
    assert (await house.post("/api/models/unload/org/model:7b", b"")).body == b"OK"
    assert (await house.post("/api/models/unload/gpt-4o-mini", b"")).body == b"OK"
    assert house.dispatcher.unloads == ["org/model:7b", "tiny"]
    assert (await house.post("/api/models/unload", b"")).json == {"msg": "ok"}
    assert (await house.post("/api/models/unload/nobody", b"")).status == 404
    assert (await house.ask("GET", "/api/models/unload")).status == 405
    house.dispatcher.logs.append("tiny", "old")
    client = await house.client()
    await client.begin("GET", "/logs/stream")
    _, headers = await client.head()
    assert await anext(client.pieces(headers)) == b"[tiny] old\n"


async def test_metrics(house: House) -> None:
    await house.worker()
    await house.chat()
    await house.chat(b'{"model":"nobody"}')
    await house.post('/v1/any"thing', b"{}")
    house.dispatcher.view = Snapshot((view("tiny"),), {"org/model:7b": 3})
    got = await house.ask("GET", "/metrics")
    assert got.headers["content-type"] == "text/plain; version=0.0.4"
    lines = got.body.decode().splitlines()
    assert f'swapper_requests_total{{model="tiny",route="{CHAT}",code="200"}} 1' in lines
    assert f'swapper_requests_total{{model="",route="{CHAT}",code="404"}} 1' in lines
    assert 'swapper_requests_total{model="",route="/v1/*",code="400"} 1' in lines
    assert 'swapper_in_flight{model="tiny"} 1' in lines
    assert 'swapper_waiting{model="org/model:7b"} 3' in lines
    assert 'swapper_model_state{model="tiny",state="ready"} 1' in lines
    assert 'swapper_model_state{model="tiny",state="starting"} 0' in lines
    for span, seconds in (("queue", 0.25), ("load", 0.125)):
        name = f"swapper_request_{span}_seconds"
        assert f'{name}_sum{{model="tiny"}} {seconds:.6f}' in lines
        assert f'{name}_bucket{{model="tiny",le="0.1"}} 0' in lines
        assert f'{name}_bucket{{model="tiny",le="0.25"}} 1' in lines
        assert f'{name}_bucket{{model="tiny",le="+Inf"}} 1' in lines
        assert f'{name}_count{{model="tiny"}} 1' in lines
    assert not any(line.startswith("swapper_request_swap_seconds_") for line in lines)
    assert 'swapper_request_first_byte_seconds_count{model="tiny"} 1' in lines
    assert 'swapper_request_duration_seconds_count{model="tiny"} 1' in lines


async def test_workers_metrics_stand_on_the_page_with_their_models_name(house: House) -> None:
    page = (
        b"# HELP tokens_total Tokens.\n# TYPE tokens_total counter\ntokens_total 7\n"
        b'took_bucket{le="1",model="x"} 3 1700000000\n<html>\n'
    )
    asked = 0

    async def script(peer: Peer) -> None:
        nonlocal asked
        while True:
            seen = await peer.request()
            asked += (seen.method, seen.target) == ("GET", "/metrics")
            await peer.send(http(page))

    await house.worker(script)
    here = house.dispatcher.endpoints[0]
    gone = Endpoint(socket_path=f"{house.folder}/nobody.sock")
    house.dispatcher.measured = {"tiny": here, 'o"rg': here, "dead": gone}
    for _ in range(3):  # the page is kept for a second
        got = await house.ask("GET", "/metrics")
    assert asked == 2
    assert got.body.decode().endswith(
        "# HELP tokens_total Tokens.\n# TYPE tokens_total counter\n"
        'tokens_total{model="tiny"} 7\ntokens_total{model="o\\"rg"} 7\n'
        'took_bucket{model="tiny",le="1",exported_model="x"} 3 1700000000\n'
        'took_bucket{model="o\\"rg",le="1",exported_model="x"} 3 1700000000\n'
    )


async def test_the_state_says_what_a_page_shows(house: House) -> None:
    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            is_page = seen.target == "/metrics"
            await peer.send(http(b"llamacpp:tokens_predicted_total 41\n" if is_page else b"{}"))

    await house.worker(script)
    await house.chat()
    house.dispatcher.measured = {"tiny": house.dispatcher.endpoints[0]}
    device = DeviceView("host", budget=100, others=10, charged=60, lent=4)
    house.dispatcher.view = Snapshot((view("tiny"),), {"org/model:7b": 3}, (device,))
    got = (await house.ask("GET", "/swapper/v1/state")).json
    told = {"name": "host", "budget": 100, "others": 10, "lent": 4, "charged": 60}
    assert got["devices"] == [told]
    models = {model["name"]: model for model in got["models"]}
    assert models["tiny"]["state"] == "ready"
    assert models["tiny"]["tokens"] == 41
    assert models["tiny"]["reserved"] == {"host": 100}
    assert models["org/model:7b"] | {"state": "stopped", "waiting": 3} == models["org/model:7b"]
    (request,) = got["requests"]
    assert (request["model"], request["status"], request["queue_s"]) == ("tiny", 200, 0.25)
    assert request["first_byte_s"] <= request["total_s"]


async def test_the_state_is_streamed_until_the_end(house: House) -> None:
    client = await house.client()
    await client.begin("GET", "/swapper/v1/events")
    _, headers = await client.head()
    assert headers["content-type"] == "text/event-stream"
    pieces = client.pieces(headers)
    assert b'"state":"stopped"' in await anext(pieces)
    house.dispatcher.view = Snapshot((view("tiny", "starting"),), {})
    async with house.dispatcher.news:
        house.dispatcher.news.notify_all()
    piece = await anext(pieces)
    assert piece.startswith(b"data: {")
    assert b'"state":"starting"' in piece
    assert house.front is not None
    assert await house.front.close(PATIENCE_S)
    assert [piece async for piece in pieces] == []
    house.front = None


class Follower:
    """Reads the stream of states as a page does."""

    def __init__(self, house: House, pieces: AsyncIterator[bytes]) -> None:
        self.house = house
        self.pieces = pieces
        self.seen: list[int] = []  # numbers of requests, as they came
        self.oldest = 0

    @classmethod
    async def of(cls, house: House) -> Follower:
        client = await house.client()
        await client.begin("GET", "/swapper/v1/events")
        _, headers = await client.head()
        follower = cls(house, client.pieces(headers))
        await follower.read()
        return follower

    async def read(self) -> None:
        told = json.loads((await anext(self.pieces)).removeprefix(b"data: "))
        assert told["requests_since"] == (self.seen[-1] if self.seen else 0)
        self.seen += [request["number"] for request in told["requests"]]
        self.oldest = told["oldest_request"]

    async def read_until(self, number: int) -> None:
        while number not in self.seen:
            async with self.house.dispatcher.news:
                self.house.dispatcher.news.notify_all()
            await self.read()


async def test_each_request_is_streamed_once(house: House) -> None:
    await house.worker()
    await house.chat()
    first = await Follower.of(house)
    assert (first.seen, first.oldest) == ([1], 1)
    for _ in range(2):
        await house.chat()
    await first.read_until(3)
    second = await Follower.of(house)
    for _ in range(RECENT):
        await house.chat()
    for follower in (first, second):
        await follower.read_until(RECENT + 3)
        assert follower.seen == [*range(1, RECENT + 4)]
        assert follower.oldest == 4
    assert (await Follower.of(house)).seen == [*range(4, RECENT + 4)]


# ---------------------------------------------------------------- listening and the end


async def test_listens_on_unix_sockets_and_given_ones(bare_house: House) -> None:
    path = f"{bare_house.folder}/front.sock"
    given = socket.create_server(("127.0.0.1", 0))
    await bare_house.open()
    assert bare_house.front is not None
    await bare_house.front.close(0)
    await bare_house.front.start([Listen(socket_path=path), given])
    bare_house.port = given.getsockname()[1]
    assert (await bare_house.ask("GET", "/health")).status == 200
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b'{"status":"ok"}' in await reader.read()
    writer.close()


async def begun_stream(house: House, go: asyncio.Event) -> tuple[Any, Any]:
    """A client in the middle of a stream."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD, chunk(b"data: 1\n\n"))
        await go.wait()
        await peer.send(chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
        await peer.gone()

    await house.worker(script)
    client = await house.client()
    await client.begin("POST", CHAT, b'{"model":"tiny","stream":true}')
    _, headers = await client.head()
    pieces = client.pieces(headers)
    assert await anext(pieces) == b"data: 1\n\n"
    return client, pieces


async def test_shutdown_lets_streams_finish_and_takes_nothing_new(house: House) -> None:
    go = asyncio.Event()
    client, pieces = await begun_stream(house, go)
    assert house.front is not None
    house.front.begin_shutdown()
    got = await house.chat()
    assert (got.status, got.error["code"]) == (503, "shutting_down")
    assert (await house.ask("GET", "/health")).status == 200
    closing = asyncio.create_task(house.front.close(PATIENCE_S))
    go.set()
    assert [piece async for piece in pieces] == [b"data: [DONE]\n\n"]
    assert await closing
    assert await client.closed()
    with pytest.raises(OSError):  # noqa: PT011  # refused or reset
        await house.client()
    house.front = None


async def test_grace_that_runs_out_is_told_in_the_stream(house: House) -> None:
    _, pieces = await begun_stream(house, asyncio.Event())
    assert house.front is not None
    assert not await house.front.close(0.01)
    rest = b"".join([piece async for piece in pieces])
    assert b'"shutting_down"' in rest
    assert house.dispatcher.held == 0
    house.front = None


async def test_absolute_form(house: House) -> None:
    await house.worker()
    got = await house.post("http://elsewhere/v1/completions?a=b", ASK)
    assert got.json["target"] == "/v1/completions?a=b"
