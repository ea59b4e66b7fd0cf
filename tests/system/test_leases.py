"""Memory lent over HTTP, with real workers that have to leave for it."""

from __future__ import annotations

import httpx
import pytest

from tests.system.conftest import PATIENCE_S, eventually

CONFIG = """
memory: {host: 1GiB}
models:
  a: {engine: echo, memory: {host: 600MiB}}
"""


def lease(swapper, **wanted):
    return httpx.post(f"{swapper.url}/lease", json=wanted, timeout=PATIENCE_S)


def test_a_lease_is_there_when_the_model_has_gone_and_ends_when_it_is_given_back(serve):
    swapper = serve(CONFIG)
    swapper.chat("a")
    answer = lease(swapper, host="all", **{"for": "1h"})
    assert answer.status_code == 201
    assert answer.json()["memory"] == {"host": 1024**3}
    assert swapper.workers() == {}
    (device,) = [
        d for d in swapper.get("/swapper/v1/state").json()["devices"] if d["name"] == "host"
    ]
    assert device["lent"] == device["others"] == 1024**3
    loan = answer.json()["lease"]
    given = httpx.delete(f"{swapper.url}/swapper/v1/lease/{loan}")
    assert given.status_code == 200
    assert httpx.delete(f"{swapper.url}/lease/{loan}").status_code == 404
    assert swapper.chat("a").status_code == 200


def test_a_request_waits_for_a_lease_to_be_over(serve):
    swapper = serve(CONFIG)
    assert lease(swapper, host="all", **{"for": "500ms"}).status_code == 201
    answer = swapper.chat("a")
    assert answer.status_code == 200
    assert float(answer.headers["x-swapper-queue-ms"]) > 100


def test_a_lease_that_cannot_be_had_is_refused_and_nothing_is_lent(serve):
    swapper = serve(CONFIG.replace("600MiB}", "600MiB}, pin: true"))
    swapper.chat("a")
    answer = lease(swapper, host="all", wait="200ms")
    assert answer.status_code == 503
    assert "pinned" in answer.json()["error"]["message"]
    swapper.get("/running")
    assert swapper.chat("a").status_code == 200
    httpx.post(f"{swapper.url}/swapper/v1/models/a/unload", timeout=PATIENCE_S)
    eventually(lambda: swapper.workers() == {})
    assert swapper.chat("a").status_code == 200


@pytest.mark.parametrize(
    "wanted",
    [{}, {"host": "much"}, {"gpu": "1GiB"}, {"gpu": {"cuda:9": "1GiB"}}, {"host": "1GiB", "for": "9d"},
     {"host": "1GiB", "how": "now"}],
)  # fmt: skip
def test_what_makes_no_sense_is_a_400(serve, wanted):
    assert lease(serve(CONFIG), **wanted).status_code == 400
