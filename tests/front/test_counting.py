"""`count_tokens`: by the counting program for our engines, by the server itself for foreign ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from swapper.core.registry import ModelSpec, Registry
from swapper.runtime.counter import TokenCounter
from tests.front.conftest import House
from tests.front.fakes import Got, answering, http

COUNT = "/v1/messages/count_tokens?beta=true"


@pytest.fixture
async def counting(house: House) -> AsyncIterator[House]:
    """With the real program, and models of a foreign kind."""
    specs = (ModelSpec("tiny", "echo"), ModelSpec("far", "url"), ModelSpec("near", "command"))
    house.dispatcher.registry = Registry({spec.name: spec for spec in specs}, budgets={})
    counter = TokenCounter()
    assert house.front is not None
    house.front.set_counter(counter)
    yield house
    await counter.close()


async def count(house: House, model: str, **fields: object) -> Got:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": model, "messages": messages, "max_tokens": None, **fields}
    return await house.post(COUNT, json.dumps(body).encode())


async def test_our_own_engines(counting: House) -> None:
    got = await count(counting, "tiny")
    assert (got.status, got.headers["x-swapper-model"]) == (200, "tiny")
    few = got.json["input_tokens"]
    assert isinstance(few, int)
    more = (await count(counting, "tiny", system="Be kind.")).json["input_tokens"]
    assert more == few + len("<system\nBe kind.>\n")  # a byte each, and two tokens around it
    tools = [{"name": "get", "input_schema": {"type": "object"}}]
    assert (await count(counting, "tiny", tools=tools)).json["input_tokens"] > few
    assert counting.dispatcher.arrivals == []


async def test_what_is_wrong(counting: House) -> None:
    assert (await count(counting, "nope")).status == 404
    got = await count(counting, "tiny", messages=[{"role": "user", "content": 5}])
    assert (got.status, got.error["type"]) == (400, "invalid_request_error")


async def test_a_foreign_server_that_counts(counting: House) -> None:
    worker = await counting.worker(answering(http(b'{"input_tokens":42}')))
    for model in ("far", "near"):
        got = await count(counting, model)
        assert got.json == {"input_tokens": 42}
        assert worker.seen[-1].target == "/v1/messages/count_tokens"
        assert json.loads(worker.seen[-1].body)["model"] == model


@pytest.mark.parametrize("answer", [http(b"{}", "404 No"), http(b'{"tokens":1}')])
async def test_a_foreign_server_that_does_not(counting: House, answer: bytes) -> None:
    await counting.worker(answering(answer))
    got = await count(counting, "far")
    assert (got.status, got.json["type"]) == (501, "error")


async def test_no_server_is_started_to_count(counting: House) -> None:
    counting.dispatcher.can_unload = False  # it is not loaded
    assert (await count(counting, "near")).status == 501
    assert counting.dispatcher.arrivals == []


async def test_inputs_of_responses(counting: House) -> None:
    async def count_input(**fields: object) -> Got:
        body = {"model": "tiny", "input": "hi", **fields}
        return await counting.post("/v1/responses/input_tokens", json.dumps(body).encode())

    few = (await count(counting, "tiny")).json["input_tokens"]
    got = await count_input()
    assert got.json == {"object": "response.input_tokens", "input_tokens": few}
    assert (await count_input(instructions="Be kind.")).json["input_tokens"] > few
    got = await count_input(input=5)
    assert (got.status, got.error["param"]) == (400, "input")
