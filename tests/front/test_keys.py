"""What a key is for: scopes, models, how often; and keys in a path, which nobody gets to see."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from swapper.front.keys import ADMIN, INFERENCE, ApiKey, Bucket, Keys, scope_of
from tests.front.conftest import House


class Rate(NamedTuple):
    requests: int
    seconds: float


def bearer(key):
    return {"authorization": f"Bearer {key}"}


CHAT = {"model": "m", "messages": []}


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/chat/completions", INFERENCE),
        ("POST", "/v1/messages", INFERENCE),
        ("POST", "/api/chat", INFERENCE),
        ("GET", "/upstream/m/props", INFERENCE),
        ("POST", "/swapper/v1/models/m/unload", ADMIN),
        ("POST", "/swapper/v1/models/m/pin", ADMIN),
        ("GET", "/swapper/v1/decisions", ADMIN),
        ("GET", "/logs", ADMIN),
        ("GET", "/logs/stream", ADMIN),
        ("GET", "/unload", ADMIN),
        ("POST", "/api/models/unload/m", ADMIN),
        ("POST", "/lease", ADMIN),
        ("GET", "/v1/models", None),
        ("GET", "/running", None),
        ("GET", "/metrics", None),
    ],
)
def test_every_path_has_its_scope(method, path, scope):
    assert scope_of(method, path) == scope


def test_a_bucket_is_full_after_a_rest_and_fills_steadily():
    bucket = Bucket(Rate(2, 10.0), now=0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [0.0, 0.0, 5.0]
    assert bucket.take(4.0) == pytest.approx(1.0)
    assert bucket.take(5.0) == 0.0
    assert [bucket.take(1000.0) for _ in range(3)] == [0.0, 0.0, 5.0]


def test_a_reload_gives_nobody_more_requests_but_another_rate_counts_anew():
    slow, fast = Rate(1, 60.0), Rate(2, 60.0)
    keys = Keys([ApiKey("ann", "a", rate=slow)], clock=lambda: 0.0)
    bucket = keys._buckets["a"]
    keys.replace([ApiKey("ann", "a", rate=Rate(1, 60.0))])
    assert keys._buckets["a"] is bucket
    keys.replace([ApiKey("ann", "a", rate=fast)])
    assert keys._buckets["a"] is not bucket


# ---------------------------------------------------------------- over HTTP

ASK = b'{"model":"tiny"}'
OTHER = b'{"model":"org/model:7b"}'
MESSAGE = b'{"model":"org/model:7b","max_tokens":9,"messages":[{"role":"user","content":"x"}]}'


async def test_a_key_is_for_its_scopes(bare_house: House) -> None:
    asks = ApiKey("ann", "a", scopes=frozenset({INFERENCE}))
    admin = ApiKey("root", "r", scopes=frozenset({ADMIN}))
    await bare_house.open(api_keys=[asks, admin])
    await bare_house.worker()
    assert (await bare_house.chat(ASK, bearer("a"))).status == 200
    got = await bare_house.chat(ASK, bearer("r"))
    assert (got.status, got.error["code"]) == (403, "forbidden")
    assert "inference" in got.error["message"]
    for path in ("/logs", "/swapper/v1/state", "/unload"):
        assert (await bare_house.ask("GET", path, headers=bearer("a"))).status == 403
    assert (await bare_house.ask("GET", "/logs", headers=bearer("r"))).status == 200
    assert (await bare_house.ask("GET", "/v1/models", headers=bearer("r"))).status == 200
    assert not bare_house.dispatcher.unloads


async def test_a_key_is_for_its_models_and_sees_no_others(bare_house: House) -> None:
    await bare_house.open(api_keys=[ApiKey("ann", "a", models=frozenset({"tiny"}))])
    await bare_house.worker()
    assert (await bare_house.chat(ASK, bearer("a"))).status == 200
    assert (await bare_house.chat(b'{"model":"gpt-4o-mini"}', bearer("a"))).status == 200
    tries = [
        await bare_house.chat(OTHER, bearer("a")),
        await bare_house.chat(b'{"model":"org/model:7c"}', bearer("a")),
        await bare_house.post("/v1/messages", MESSAGE, bearer("a")),
        await bare_house.post("/v1/messages/count_tokens", MESSAGE, bearer("a")),
        await bare_house.post("/api/chat", MESSAGE, bearer("a")),
        await bare_house.post("/api/show", OTHER, bearer("a")),
        await bare_house.ask("GET", "/upstream/org/model:7b/x", headers=bearer("a")),
        await bare_house.ask("GET", "/v1/models/org/model:7b", headers=bearer("a")),
    ]
    assert [got.status for got in tries] == [403] * len(tries)
    assert not any(b"did you mean" in got.body for got in tries)
    listed = (await bare_house.ask("GET", "/v1/models", headers=bearer("a"))).json["data"]
    assert [entry["id"] for entry in listed] == ["tiny"]
    assert b"org/model" not in (await bare_house.ask("GET", "/api/tags", headers=bearer("a"))).body


async def test_a_key_asks_no_more_often_than_it_may(bare_house: House) -> None:
    limited = ApiKey("ann", "a", rate=Rate(2, 600.0))
    await bare_house.open(api_keys=[limited, ApiKey("bob", "b")])
    await bare_house.worker()
    assert [(await bare_house.chat(ASK, bearer("a"))).status for _ in range(2)] == [200, 200]
    got = await bare_house.chat(ASK, bearer("a"))
    assert (got.status, got.error["code"]) == (429, "rate_limit_exceeded")
    assert 295 <= int(got.headers["retry-after"]) <= 300
    assert (await bare_house.ask("GET", "/v1/models", headers=bearer("a"))).status == 200
    assert (await bare_house.chat(ASK, bearer("b"))).status == 200


async def test_a_key_in_the_path_is_taken_where_that_is_configured(
    bare_house: House, capfd: pytest.CaptureFixture[str]
) -> None:
    await bare_house.open(api_keys=[ApiKey("ann", "s/cret")], key_in_path=True)
    worker = await bare_house.worker()
    assert (await bare_house.post("/key/s%2Fcret/v1/chat/completions?x=1", ASK)).status == 200
    assert worker.seen[0].target == "/v1/chat/completions?x=1"
    assert (await bare_house.ask("GET", "/key/s%2Fcret/v1/models")).status == 200
    assert (await bare_house.post("/key/wrong/v1/chat/completions", ASK)).status == 401
    assert (await bare_house.ask("GET", "/key/s%2Fcret/nothing")).status == 404
    assert (await bare_house.ask("GET", "/key/s%2Fcret//evil:bad")).status in (400, 404)
    printed = "".join(capfd.readouterr())
    assert "cret" not in printed


async def test_a_key_in_the_path_is_no_key_otherwise(bare_house: House) -> None:
    await bare_house.open(api_keys=[ApiKey("ann", "secret")])
    assert (await bare_house.ask("GET", "/key/secret/v1/models")).status == 401
