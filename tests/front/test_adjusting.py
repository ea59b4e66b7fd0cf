"""Request fields as the configuration wants them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swapper.config.values import Adjustment
from swapper.errors import BadRequest
from swapper.front.adjusting import adjusted
from tests.front.conftest import House
from tests.front.fakes import answering, http

RULES = Adjustment(
    drop=frozenset({"seed"}),
    default={"temperature": 0.2, "top_p": 0.9},
    set={"max_tokens": 7},
    system="Be brief.",
)


def changed(adjustment: Adjustment = RULES, **fields: Any) -> dict[str, Any]:
    return json.loads(adjusted(json.dumps(fields).encode(), adjustment))


def test_drop_default_and_set() -> None:
    assert changed(seed=1, temperature=1, top_p=None, max_tokens=99, model="m") == {
        "temperature": 1,
        "top_p": 0.9,
        "max_tokens": 7,
        "model": "m",
    }


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ({"role": "user", "content": "hi"}, "Be brief."),
        ({"role": "system", "content": "Be kind."}, "Be brief.\n\nBe kind."),
        ({"role": "developer", "content": ""}, "Be brief."),
        (
            {"role": "system", "content": [{"type": "text", "text": "x"}]},
            [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "x"}],
        ),
    ],
)
def test_system(first: dict[str, Any], expected: object) -> None:
    found = changed(messages=[first, {"role": "assistant", "content": "a"}])["messages"]
    assert found[0]["content"] == expected
    assert found[-1] == {"role": "assistant", "content": "a"}


def test_what_is_not_touched_keeps_its_bytes() -> None:
    body = b'{"model":"m","x": 1.0e5,"y":[ 1 ]}'
    assert adjusted(body, Adjustment(set={"a": 1})) == b'{"model":"m","x":1.0e5,"y":[ 1 ],"a":1}'


@pytest.mark.parametrize("body", [b'{"messages":5}', b"[]", b'{"messages":[' + b"[" * 90_000])
def test_what_is_no_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        adjusted(body, RULES)


async def test_by_name_in_every_dialect(house: House) -> None:
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    worker = await house.worker(answering(http(json.dumps(answer).encode())))
    assert house.front is not None
    house.front.set_adjustments({"gpt-4o-mini": RULES})
    untouched = b'{ "model": "tiny", "messages": [] }'
    await house.chat(untouched)
    assert worker.seen[-1].body == untouched
    messages = [{"role": "user", "content": "hi"}]
    chat = {"model": "gpt-4o-mini", "messages": messages}
    await house.chat(json.dumps(chat).encode())
    seen = json.loads(worker.seen[-1].body)
    assert seen["messages"][0] == {"role": "system", "content": "Be brief."}
    assert seen["max_tokens"] == 7
    got = await house.post("/v1/messages", json.dumps({**chat, "max_tokens": 50}).encode())
    assert got.status == 200
    assert json.loads(worker.seen[-1].body) == seen
