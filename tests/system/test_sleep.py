"""Workers that sleep instead of stopping, as real processes: `max_loaded` is what room is short of."""

from __future__ import annotations

import psutil
import pytest

from tests.system.conftest import eventually

CONFIG = """
max_loaded: 1
defaults: {{ttl: {ttl}}}
models:
  a: {{engine: echo, options: {{load_s: 1.0, can_sleep: true, memory_bytes: 67108864, {options}}}}}
  b: {{engine: echo}}
"""


def config(ttl="10m", options="wake_s: 0.1"):
    return CONFIG.format(ttl=ttl, options=options)


def state(swapper, model):
    """Of its worker, and its process; None while there is none."""
    running = swapper.get("/running").json()["running"]
    return next(((w["state"], w["pid"]) for w in running if w["model"] == model), None)


def actions(swapper, model):
    """What was decided about it, oldest first."""
    decisions = swapper.get(f"/swapper/v1/decisions?model={model}").json()["decisions"]
    return [decision["action"] for decision in reversed(decisions)]


def test_one_that_is_moved_out_sleeps_and_wakes_in_the_same_process(serve):
    swapper = serve(config())
    # A form has the worker read its vocabulary now, and not while it is measured.
    assert swapper.chat("a", response_format={"type": "json_object"}).status_code == 200
    pid = state(swapper, "a")[1]
    awake_bytes = psutil.Process(pid).memory_info().rss
    assert swapper.chat("b").status_code == 200
    assert state(swapper, "a") == ("sleeping", pid)
    assert awake_bytes - psutil.Process(pid).memory_info().rss > 60 << 20
    (running,) = [w for w in swapper.get("/running").json()["running"] if w["model"] == "a"]
    assert 0 < running["memory"]["measured"]["host"] < awake_bytes

    answer = swapper.chat("a")
    assert answer.status_code == 200
    assert state(swapper, "a") == ("ready", pid)
    assert 50 < float(answer.headers["x-swapper-load-ms"]) < 900  # a load takes 1 s
    assert actions(swapper, "a") == ["start", "sleep", "wake"]


def test_a_sleeper_is_unloaded_when_its_ttl_is_over(serve):
    swapper = serve(config(ttl="1s"))
    swapper.chat("a")
    pid = state(swapper, "a")[1]
    swapper.chat("b")
    eventually(lambda: not psutil.pid_exists(pid))
    assert actions(swapper, "a") == ["start", "sleep", "expire"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [("fail_sleep: true", ["start", "sleep", "stop", "start"]),
     ("fail_wake: true", ["start", "sleep", "wake", "stop", "start"])],
)  # fmt: skip
def test_one_that_fails_at_it_is_stopped_and_loaded_when_it_is_asked_for(serve, options, expected):
    swapper = serve(config(options=options))
    assert [swapper.chat(model).status_code for model in "aba"] == [200, 200, 200]
    assert actions(swapper, "a") == expected


def test_one_that_is_killed_asleep_is_loaded_when_it_is_asked_for(serve):
    swapper = serve(config())
    assert [swapper.chat(model).status_code for model in "ab"] == [200, 200]
    psutil.Process(state(swapper, "a")[1]).kill()
    eventually(lambda: state(swapper, "a") is None)
    assert swapper.chat("a").status_code == 200


def test_what_a_wake_costs_is_known_after_a_restart(serve):
    swapper = serve(config())
    for model in "aba":
        swapper.chat(model)
    assert swapper.stop() == 0
    again = serve(config())
    assert [again.chat(model).status_code for model in "aba"] == [200, 200, 200]
    assert actions(again, "a")[-3:] == ["start", "sleep", "wake"]
