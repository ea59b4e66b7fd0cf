"""Ollama's API over real connections: lines, keep-alives, breaks, stays, lists, refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from swapper.config import Card
from swapper.errors import Unavailable
from swapper.front.keys import ApiKey
from swapper.runtime.placement import WorkerFacts
from swapper.runtime.views import Snapshot
from tests.front.conftest import House
from tests.front.dialects.streams import ANSWER, STREAM, delta, wire
from tests.front.fakes import Got, answering, http, streaming, view

Json = dict[str, Any]

WHOLE = http(json.dumps(ANSWER).encode())


async def chat(house: House, headers: Mapping[str, str] | None = None, **fields: Any) -> Got:
    return await house.post("/api/chat", body(**fields), dict(headers or {}))


def body(**fields: Any) -> bytes:
    messages = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": "tiny", "messages": messages, **fields}).encode()


def lines(data: bytes) -> list[Json]:
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


# ---------------------------------------------------------------- answers


async def test_a_whole_answer(house: House) -> None:
    worker = await house.worker(answering(WHOLE))
    got = await chat(house, stream=False)
    assert got.status == 200
    assert got.headers["content-type"].startswith("application/json")
    assert got.json["message"] == {"role": "assistant", "content": "hello"}
    assert got.json["load_duration"] == 125_000_000  # as the lease says
    assert got.headers["x-swapper-queue-ms"] == "250.0"
    assert worker.seen[0].target == "/v1/chat/completions"
    assert json.loads(worker.seen[0].body)["model"] == "tiny"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, len(STREAM)])
async def test_a_stream_in_any_pieces(house: House, size: int) -> None:
    await house.worker(streaming(*(STREAM[i : i + size] for i in range(0, len(STREAM), size))))
    got = await chat(house)
    assert got.headers["content-type"] == "application/x-ndjson"
    assert got.is_whole
    first, last = lines(got.body)
    assert first["message"]["content"] == "hé"
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", 5)


async def test_a_server_that_does_not_stream(house: House) -> None:
    await house.worker(answering(WHOLE))
    first, last = lines((await chat(house)).body)
    assert first["message"]["content"] == "hello"
    assert last["done"] is True


async def test_other_routes_ask_other_paths(house: House) -> None:
    vectors = {"data": [{"index": 0, "embedding": [0.0, 2.0]}], "usage": {"prompt_tokens": 3}}
    worker = await house.worker(answering(http(json.dumps(vectors).encode())))
    got = await house.post("/api/embed", b'{"model":"tiny","input":"x"}')
    assert got.json["embeddings"] == [[0.0, 1.0]]
    got = await house.post("/api/embeddings", b'{"model":"tiny","prompt":"x"}')
    assert got.json == {"embedding": [0.0, 2.0]}
    assert {seen.target for seen in worker.seen} == {"/v1/embeddings"}


@pytest.mark.parametrize("name", ["tiny:latest", "TINY", "gpt-4o-mini", "gpt-4o-mini:latest"])
async def test_names_are_those_of_ollama(house: House, name: str) -> None:
    assert house.front is not None
    drops = SimpleNamespace(drop={"seed"}, default={}, set={"top_k": 1}, system=None)
    house.front.set_adjustments({"tiny": drops, "gpt-4o-mini": drops})  # type: ignore[dict-item]
    worker = await house.worker(answering(WHOLE))
    got = await chat(house, model=name, stream=False, options={"seed": 5})
    assert got.json["model"] == name
    assert got.headers["x-swapper-model"] == "tiny"
    sent = json.loads(worker.seen[0].body)
    assert sent["top_k"] == 1
    assert "seed" not in sent


# ---------------------------------------------------------------- waiting, and what fails


async def test_whoever_waits_gets_lines_that_add_nothing(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01, keepalive_every_s=0.01)
    await house.worker(streaming(STREAM))
    house.dispatcher.gate.clear()
    client = await house.client()
    await client.begin("POST", "/api/chat", body())
    status, headers = await client.head()
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    data = b""
    async for piece in client.pieces(headers):
        data += piece
        if data.count(b"\n") == 2:
            house.dispatcher.gate.set()
    found = lines(data)
    assert len(found) >= 4
    assert "".join(line["message"]["content"] for line in found) == "hé"
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]


async def test_what_fails_after_that_is_the_last_line(bare_house: House) -> None:
    house = bare_house
    await house.open(keepalive_after_s=0.01, keepalive_every_s=5)
    await house.worker()
    house.dispatcher.gate.clear()
    client = await house.client()
    await client.begin("POST", "/api/generate", b'{"model":"tiny","prompt":"hi"}')
    _, headers = await client.head()
    house.dispatcher.refusal = Unavailable("timeout", "too late", retry_after_s=1)
    house.dispatcher.gate.set()
    waiting, error = lines(b"".join([piece async for piece in client.pieces(headers)]))
    assert (waiting["response"], waiting["done"]) == ("", False)
    assert error == {"error": "too late"}


@pytest.mark.parametrize(
    "sent",
    [
        wire(delta(content="a"), {"error": {"message": "broke"}}, done=False),
        wire(delta(content="a"), done=False),
        wire(delta(content="a"), done=False) + b"data: {]\n\n",
        wire(delta(content="a"), {"choices": [5]}),
    ],
)
async def test_a_stream_that_fails_says_so(house: House, sent: bytes) -> None:
    await house.worker(streaming(sent))
    first, last = lines((await chat(house)).body)
    assert first["message"]["content"] == "a"
    assert list(last) == ["error"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", ["400 No", "503 Full", "429 Slow", "500 Oh"])
async def test_errors_of_workers_keep_their_status(house: House, status: str, stream: bool) -> None:
    await house.worker(answering(http(b'{"error":{"message":"why"}}', status)))
    got = await chat(house, stream=stream)
    assert (got.status, got.json) == (int(status[:3]), {"error": "why"})


async def test_errors_of_swapper_in_the_same_words(bare_house: House) -> None:
    house = bare_house
    await house.open(api_keys=[ApiKey("me", "secret")], body_limit=2000)
    await house.worker()
    key = {"authorization": "Bearer secret"}
    for path in ("/api/tags", "/api/chat", "/api/nothing"):
        got = await house.post(path, body())
        assert (got.status, list(got.json)) == (401, ["error"])
    got = await chat(house, key, model="tini")
    assert (got.status, got.json["error"]) == (404, "model 'tini' not found; did you mean 'tiny'?")
    for sent in (b"{", b"", b"[]", b'{"model":1}', b'{"messages":[]}', b"[" * 50_000):
        got = await house.post("/api/chat", sent, key)
        assert got.status in (400, 413)
        assert isinstance(got.json["error"], str)
    assert (await chat(house, key, x="x" * 3000)).status == 413
    assert (await house.ask("GET", "/api/chat", b"", key)).status == 405
    assert (await house.ask("POST", "/api/tags", b"", key)).status == 405
    assert (await house.ask("GET", "/api/show", b"", key)).status == 405
    got = await house.post("/api/chat/api/show", b"{}", key)
    assert (got.status, list(got.json)) == (404, ["error"])


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/api/pull", "swapper pull"),
        ("POST", "/api/push", "not sent"),
        ("POST", "/api/create", "swapper create"),
        ("POST", "/api/copy", "aliases"),
        ("DELETE", "/api/delete", "configuration"),
        ("POST", "/api/blobs/sha256:00", "swapper pull"),
    ],
)
async def test_what_is_done_elsewhere(house: House, method: str, path: str, words: str) -> None:
    got = await house.ask(method, path, b'{"model":"tiny"}')
    assert got.status == 501
    assert words in got.json["error"]  # type: ignore[operator]


# ---------------------------------------------------------------- loading, staying


@pytest.mark.parametrize("stream", [True, False])
async def test_nothing_to_say_loads(house: House, stream: bool) -> None:
    worker = await house.worker()
    sent = {"model": "tiny", "prompt": "", "keep_alive": "5m", "stream": stream}
    got = await house.post("/api/generate", json.dumps(sent).encode())
    (line,) = lines(got.body if stream else got.body + b"\n")
    assert (line["done"], line["done_reason"]) == (True, "load")
    assert len(house.dispatcher.arrivals) == 1
    assert house.dispatcher.stays == [("tiny", 300.0)]
    assert not worker.seen


async def test_nothing_to_say_and_no_stay_unloads(house: House) -> None:
    got = await house.post("/api/chat", b'{"model":"gpt-4o-mini","keep_alive":0,"stream":false}')
    assert got.json["done_reason"] == "unload"
    assert house.dispatcher.stays == [("tiny", 0)]
    assert house.dispatcher.arrivals == []


async def test_a_stay_is_chosen_by_who_says_one(house: House) -> None:
    await house.worker(answering(WHOLE))
    await chat(house, stream=False)
    assert house.dispatcher.stays == []
    await chat(house, stream=False, keep_alive=-1)
    await chat(house, stream=False, keep_alive=0)
    assert house.dispatcher.stays == [("tiny", float("inf")), ("tiny", 0.0)]


# ---------------------------------------------------------------- lists


async def test_tags_and_show(house: House) -> None:
    assert house.front is not None
    card = Card(format="gguf", architecture="llama", context=4096, size_bytes=7)
    house.front.set_cards({"tiny": card})
    system = SimpleNamespace(drop=frozenset(), default={}, set={}, system="be kind")
    house.front.set_adjustments({"gpt-4o-mini": system})  # type: ignore[dict-item]
    models = (await house.ask("GET", "/api/tags")).json["models"]
    assert isinstance(models, list)
    assert [model["name"] for model in models] == ["tiny", "gpt-4o-mini", "org/model:7b"]
    assert models[0]["size"] == 7
    shown = (await house.post("/api/show", b'{"name":"gpt-4o-mini:latest"}')).json
    assert shown["system"] == "be kind"
    assert shown["model_info"] == {"general.architecture": "llama", "llama.context_length": 4096}
    shown = (await house.post("/api/show", b'{"model":"org/model:7b"}')).json
    assert shown["model_info"] == {"general.architecture": "llamacpp"}
    assert (await house.post("/api/show", b"{}")).status == 400
    assert (await house.post("/api/show", b'{"model":"nope"}')).status == 404


async def test_ps(house: House) -> None:
    now = datetime.now(UTC)
    house.dispatcher.known["tiny"] = WorkerFacts(context=2048, capabilities=("chat", "tools"))
    house.dispatcher.view = Snapshot(
        (
            view("tiny", measured={"host": 60, "cuda:0": 40}, in_flight=1, stays_s=300.0),
            view("org/model:7b", "draining", stays_s=300.0),
        ),
        {},
    )
    first, second = (await house.ask("GET", "/api/ps")).json["models"]  # type: ignore[misc]
    assert (first["name"], first["size"], first["size_vram"]) == ("tiny", 100, 40)
    assert first["context_length"] == 2048
    left = datetime.fromisoformat(first["expires_at"]) - now
    assert timedelta(seconds=299) < left < timedelta(seconds=330)
    assert datetime.fromisoformat(second["expires_at"]) < datetime.now(UTC)
    house.dispatcher.view = Snapshot(
        (
            view("tiny", idle_s=1.0, expires_in_s=50.0, stays_s=51.0),
            view("org/model:7b", stays_s=None),
            view("loading", "starting"),
        ),
        {},
    )
    first, second = (await house.ask("GET", "/api/ps")).json["models"]  # type: ignore[misc]
    assert (first["name"], second["name"]) == ("org/model:7b", "tiny")
    assert datetime.fromisoformat(first["expires_at"]) > now + timedelta(days=20 * 365)
    assert datetime.fromisoformat(second["expires_at"]) < now + timedelta(seconds=80)
    busy = (view("tiny", stays_s=0.0), view("org/model:7b", stays_s=9.0))
    house.dispatcher.view = Snapshot(busy, {})
    first, second = (await house.ask("GET", "/api/ps")).json["models"]  # type: ignore[misc]
    assert (first["name"], second["name"]) == ("org/model:7b", "tiny")


async def test_version_and_greeting(house: House) -> None:
    version = str((await house.ask("GET", "/api/version")).json["version"])
    assert all(part.isdecimal() for part in version.split("."))
    assert (await house.ask("HEAD", "/api/version")).status == 200
    assert (await house.ask("HEAD", "/")).status == 200
    assert b"Ollama is running" in (await house.ask("GET", "/")).body
