"""What an operator does by hand to real workers: sleep, wake, pin and unpin."""

from __future__ import annotations

import threading

import httpx
import pytest

from tests.system.conftest import PATIENCE_S, Swapper, eventually

CONFIG = """
max_loaded: 1
models:
  a: {engine: echo, ttl: 10m, options: {load_s: 0.3, can_sleep: true, tokens_per_s: 20}}
  b: {engine: echo}
"""
KEYS = """
api_keys:
  - {name: chief, key: chief-key}
  - {name: guest, key: guest-key, scopes: [inference]}
"""


def act(swapper: Swapper, action: str, model: str = "a", **options: object) -> httpx.Response:
    path = f"{swapper.url}/swapper/v1/models/{model}/{action}"
    return httpx.post(path, timeout=PATIENCE_S, **options)


def worker(swapper: Swapper, model: str = "a") -> tuple[str, int, bool] | None:
    """Its state, its process, and whether it is pinned; None while there is none."""
    running = swapper.get("/running").json()["running"]
    found = (entry for entry in running if entry["model"] == model)
    return next(((entry["state"], entry["pid"], entry["pin"]) for entry in found), None)


def test_sleeps_and_wakes_in_the_same_process(serve):
    swapper = serve(CONFIG)
    assert act(swapper, "sleep").status_code == 409  # it is not loaded
    swapper.chat("a")
    pid = worker(swapper)[1]
    told = act(swapper, "sleep")
    assert (told.status_code, told.json()) == (200, {"model": "a", "state": "sleeping"})
    assert worker(swapper)[:2] == ("sleeping", pid)
    assert act(swapper, "wake").status_code == 202
    eventually(lambda: worker(swapper)[:2] == ("ready", pid))
    act(swapper, "sleep")
    assert swapper.chat("a").status_code == 200
    assert worker(swapper)[:2] == ("ready", pid)


def test_one_that_answers_finishes_first(serve):
    swapper = serve(CONFIG)
    swapper.chat("a")
    answers = []
    talk = threading.Thread(target=lambda: answers.append(swapper.chat("a", "a b c d e f g h")))
    talk.start()
    eventually(lambda: swapper.get("/running").json()["running"][0]["in_flight"])
    assert act(swapper, "sleep").json()["state"] == "sleeping"
    talk.join(PATIENCE_S)
    assert answers[0].json()["choices"][0]["message"]["content"] == "a b c d e f g h"


def test_one_that_cannot_sleep_says_so(serve):
    swapper = serve(CONFIG)
    swapper.chat("b")
    told = act(swapper, "sleep", "b")
    assert told.status_code == 409
    assert "cannot sleep" in told.json()["error"]["message"]
    assert worker(swapper, "b")[0] == "ready"


def test_one_that_fails_at_it_is_gone(serve):
    swapper = serve(CONFIG.replace("can_sleep: true", "can_sleep: true, fail_sleep: true"))
    swapper.chat("a")
    told = act(swapper, "sleep")
    assert (told.status_code, told.json()["error"]["code"]) == (409, "conflict")
    eventually(lambda: worker(swapper) is None)
    stopped = swapper.get("/swapper/v1/decisions?model=a").json()["decisions"][0]
    assert stopped["reason"] == "told to sleep: The engine was told not to sleep."


def test_a_pinned_model_is_not_moved_out_until_it_is_unpinned(serve):
    swapper = serve(CONFIG)
    swapper.chat("a")
    pid = worker(swapper)[1]
    assert act(swapper, "pin").json() == {"model": "a", "pin": True}
    refused = swapper.chat("b")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_large")
    assert worker(swapper) == ("ready", pid, True)
    models = {model["name"]: model for model in swapper.get("/swapper/v1/state").json()["models"]}
    assert [models[name]["pin"] for name in "ab"] == [True, False]
    act(swapper, "unpin")
    assert swapper.chat("b").status_code == 200
    decided = swapper.get("/swapper/v1/decisions?model=a").json()["decisions"]
    assert [line["action"] for line in reversed(decided)] == ["start", "pin", "unpin", "sleep"]


def test_a_pin_by_hand_outlives_a_reload_and_not_a_restart(serve):
    swapper = serve(CONFIG)
    act(swapper, "pin")
    assert httpx.post(f"{swapper.url}/swapper/v1/reload").status_code == 200
    swapper.chat("a")
    assert worker(swapper)[2]
    swapper.stop()
    again = serve(CONFIG)
    again.chat("a")
    assert not worker(again)[2]


@pytest.mark.parametrize("is_pinned", [False, True])
def test_a_pin_wins_over_the_keep_alive_of_a_guest(serve, is_pinned):
    swapper = serve(KEYS + CONFIG)
    chief, guest = ({"authorization": f"Bearer {who}-key"} for who in ("chief", "guest"))
    act(swapper, "load", headers=chief)

    def states() -> list[str]:
        running = httpx.get(f"{swapper.url}/running", headers=guest).json()["running"]
        return [entry["state"] for entry in running]

    eventually(lambda: states() == ["ready"])
    for action in ("pin", "unpin", "sleep", "unload"):
        assert act(swapper, action, headers=guest).status_code == 403
    if is_pinned:
        act(swapper, "pin", headers=chief)
    body = {"model": "a", "prompt": "", "keep_alive": 0, "stream": False}
    told = httpx.post(f"{swapper.url}/api/generate", headers=guest, json=body, timeout=PATIENCE_S)
    assert told.status_code == 200
    if is_pinned:
        assert states() == ["ready"]
    else:
        eventually(lambda: states() == [])


def test_what_is_said_is_kept_from_a_reload_to_a_reload_and_the_log_says_so(serve, tmp_path):
    swapper = serve(CONFIG)
    file = tmp_path / "config.yaml"
    swapper.chat("b", "not kept")
    for added, is_kept in (("capture: {requests: 5}\n", True), ("", False)):
        file.write_text(added + CONFIG)
        assert httpx.post(f"{swapper.url}/swapper/v1/reload").status_code == 200
        swapper.chat("b", "hello")
        last = swapper.get("/swapper/v1/requests").json()["requests"][-1]
        assert last["is_kept"] is is_kept
        assert (last["finish"] == "stop") is is_kept
    assert "requests and answers are kept in memory" in swapper.output()
    assert "not kept" not in swapper.output()
