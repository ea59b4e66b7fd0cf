"""What broke others of its kind, and must not break swapper. Each test names the report it comes from.

Not here, since what they need does not exist yet:

- a draining victim brought back by `keep_alive: -1` in a request (ollama#17408): Ollama's dialect. The rest
  of that report is here, with `ttl: 0` and a load asked for by hand in its place.
- a victim that is asleep or waking, in each of these races: sleeping models.

Reports that are about scheduling alone are also played in the simulation (`tests/core`); here real processes
meet the real proxy.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.system.conftest import PATIENCE_S, eventually
from tests.system.test_failures import streaming

SERVER = Path(__file__).with_name("command_server.py")
PROMPT_S = 6.0  # what takes no wait at all, on a machine that is busy with other things too


@pytest.fixture
def later():
    """Calls in the background; gives their futures."""
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        yield pool.submit


def entry(swapper, model):
    """The model's entry in /running; None without a worker."""
    running = swapper.get("/running").json()["running"]
    return next((e for e in running if e["model"] == model and e["worker"]), None)


def state(swapper, model):
    found = entry(swapper, model)
    return found and found["state"]


def until(swapper, model, wanted):
    eventually(lambda: state(swapper, model) == wanted)


def starts(swapper):
    """Models in the order in which their workers were started."""
    made = swapper.get("/swapper/v1/decisions").json()["decisions"]
    return [decision["model"] for decision in reversed(made) if decision["action"] == "start"]


def text_of(answer):
    return answer.json()["choices"][0]["message"]["content"]


def act(swapper, model, action):
    """Load or unload by hand."""
    url = f"{swapper.url}/swapper/v1/models/{model}/{action}"
    return httpx.post(url, timeout=PATIENCE_S)


def worker_processes(swapper):
    """First processes of workers of our own engines, as the system sees them."""
    found = []
    for process in swapper.descendants():
        try:
            if "--listen" in process.cmdline():
                found.append(process)
        except psutil.Error:
            pass  # gone meanwhile
    return found


class TestRoomForOne:
    """Models that need each other's place at the same moment."""

    def test_two_cold_models_asked_for_at_once_both_answer(self, serve, later):
        """llama.cpp#28443: B and C are asked for while A has the only place."""
        swapper = serve(
            "max_loaded: 1\nmodels: {a: {engine: echo}, b: {engine: echo}, c: {engine: echo}}"
        )
        assert swapper.chat("a").status_code == 200
        asked = [later(swapper.chat, model, f"for {model}") for model in "bc"]
        assert [text_of(future.result()) for future in asked] == ["for b", "for c"]
        assert sorted(starts(swapper)) == ["a", "b", "c"]

    def test_many_clients_that_switch_at_once_are_all_answered_with_one_loaded_at_a_time(
        self, serve, later
    ):
        """TabbyAPI#304."""
        swapper = serve(
            "max_loaded: 1\nmodels: {a: {engine: echo}, b: {engine: echo}, c: {engine: echo}}"
        )
        asked = [later(swapper.chat, "abc"[n % 3], f"number {n}") for n in range(24)]
        most = 0
        while not all(future.done() for future in asked):
            most = max(most, len(worker_processes(swapper)))
        assert [text_of(future.result()) for future in asked] == [f"number {n}" for n in range(24)]
        assert most == 1

    def test_whoever_waited_for_a_load_is_answered_before_the_model_moves_out_again(
        self, serve, later
    ):
        """llama.cpp#28698, A: between loaded and served comes an eviction."""
        swapper = serve("""
max_loaded: 1
defaults: {max_wait: 0s}
models: {a: {engine: echo}, b: {engine: echo}}
""")
        for _ in range(3):
            asked = [later(swapper.chat, model) for model in "ab"]
            assert [future.result().status_code for future in asked] == [200, 200]

    def test_unloaded_at_the_moment_it_is_ready_a_model_answers_or_says_that_it_was_unloaded(
        self, serve, later
    ):
        """llama.cpp#28698, A: the same, by hand."""
        swapper = serve("models: {a: {engine: echo, options: {load_s: 0.1}}}")
        for _ in range(4):
            act(swapper, "a", "load")
            eventually(lambda: state(swapper, "a") == "ready")
            asked = later(swapper.chat, "a")
            unloaded = later(act, swapper, "a", "unload")
            answer = asked.result()
            unloaded.result()
            if answer.status_code != 200:
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unloaded")
        assert swapper.chat("a").status_code == 200

    def test_asked_for_between_stop_and_exit_a_model_is_loaded_anew(self, serve, later):
        """llama.cpp#28698, B."""
        swapper = serve("models: {a: {engine: echo, options: {stop_s: 1.0}}}")
        assert swapper.chat("a").status_code == 200
        before = swapper.workers()["a"]
        unloading = later(act, swapper, "a", "unload")
        until(swapper, "a", "stopping")
        assert text_of(swapper.chat("a", "again")) == "again"
        assert unloading.result().status_code == 200
        assert swapper.workers()["a"] != before


class TestAVictim:
    """A model that is to make room for another."""

    CONFIG = """
max_loaded: 1
models:
  victim: {engine: echo, ttl: 0, stop_grace: 20s, options: {tokens_per_s: 20, stop_s: %s}}
  next: {engine: echo, max_wait: 100ms}
"""

    def test_that_drains_is_not_brought_back_by_new_requests_or_a_load_by_hand(self, serve, later):
        """ollama#17408."""
        swapper = serve(self.CONFIG % 0)
        with streaming(swapper, "victim", "forty letters, spoken in two seconds ...") as answer:
            lines = answer.iter_lines()
            next(lines)
            waiting = later(swapper.chat, "next")
            until(swapper, "victim", "draining")
            more = [later(swapper.chat, "victim", "me too") for _ in range(4)]
            eventually(lambda: entry(swapper, "victim")["waiting"] == 4)
            act(swapper, "victim", "load")
            assert state(swapper, "victim") == "draining"
            assert list(lines)[-2:] == ["data: [DONE]", ""]  # and nothing is cut
        assert waiting.result().status_code == 200
        assert [text_of(future.result()) for future in more] == ["me too"] * 4
        assert starts(swapper) == ["victim", "next", "victim"]

    def test_that_crashes_while_it_drains_makes_room_at_once(self, serve, later):
        """ollama#11997."""
        swapper = serve(self.CONFIG % 0)
        with streaming(swapper, "victim") as answer:
            lines = answer.iter_lines()
            next(lines)
            waiting = later(swapper.chat, "next")
            until(swapper, "victim", "draining")
            os.kill(swapper.workers()["victim"], signal.SIGKILL)
            killed = time.monotonic()
            assert waiting.result().status_code == 200
            assert time.monotonic() - killed < PROMPT_S  # the answer had 10 s to go
            assert "[DONE]" not in "".join(lines)

    def test_that_crashes_while_it_stops_makes_room_at_once(self, serve, later):
        """ollama#11997."""
        swapper = serve(self.CONFIG % 15)
        assert swapper.chat("victim").status_code == 200
        waiting = later(swapper.chat, "next")
        until(swapper, "victim", "stopping")
        os.kill(swapper.workers()["victim"], signal.SIGKILL)
        killed = time.monotonic()
        assert waiting.result().status_code == 200
        assert time.monotonic() - killed < PROMPT_S  # the stop had 15 s to go

    def test_that_is_dead_already_is_no_obstacle(self, serve):
        """large-model-proxy#119: an eviction that looks at a dead process for ever."""
        swapper = serve(self.CONFIG % 0)
        for _ in range(2):  # a third crash in a row would be a crash loop
            assert swapper.chat("victim").status_code == 200
            os.kill(swapper.workers()["victim"], signal.SIGKILL)
            assert swapper.chat("next").status_code == 200

    def test_that_does_not_react_to_anything_is_ended_by_force(self, serve):
        """large-model-proxy#119, the other way: a process that is there and does nothing."""
        swapper = serve("""
max_loaded: 1
models:
  stuck: {engine: echo, stop_grace: 300ms}
  next: {engine: echo, max_wait: 100ms}
""")
        assert swapper.chat("stuck").status_code == 200
        os.kill(swapper.workers()["stuck"], signal.SIGSTOP)
        assert swapper.chat("next").status_code == 200
        assert list(swapper.workers()) == ["next"]


class TestALoad:
    """A load that is given up, or that fails."""

    SLOW = "max_loaded: 1\nmodels: {slow: {engine: echo, options: {load_s: 1.0}}, other: {engine: echo}}"

    def leave_while_loading(self, swapper):
        """A client who asks for `slow` and goes when its load has begun."""
        body = {"model": "slow", "messages": [{"role": "user", "content": "x"}]}
        with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
            client.post(f"{swapper.url}/v1/chat/completions", json=body, timeout=0.5)
        assert state(swapper, "slow") == "starting"

    def test_whose_client_leaves_goes_on_for_the_others(self, serve, later):
        """llama-swap#727, lollms_hub PR#37: with others waiting."""
        swapper = serve(self.SLOW)
        leaving = later(self.leave_while_loading, swapper)
        eventually(lambda: (e := entry(swapper, "slow")) and e["waiting"] == 1)
        staying = later(swapper.chat, "slow", "still here")
        leaving.result()
        assert text_of(staying.result()) == "still here"
        assert starts(swapper) == ["slow"]

    def test_whose_only_client_leaves_is_there_for_the_next_one(self, serve):
        """llama-swap#727: without others; a client that tries again finds the load going on."""
        swapper = serve(self.SLOW)
        self.leave_while_loading(swapper)
        assert swapper.chat("slow").status_code == 200
        assert starts(swapper) == ["slow"]

    def test_whose_only_client_leaves_does_not_keep_another_model_out(self, serve):
        """llama-swap#727: the wrong model was asked for, and the right one after it."""
        swapper = serve(self.SLOW)
        self.leave_while_loading(swapper)
        assert swapper.chat("other").status_code == 200
        assert starts(swapper) == ["slow", "other"]

    def test_that_failed_does_not_poison_later_ones(self, serve, tmp_path):
        """llama-swap#92."""
        script = f"test -e {tmp_path}/tried || {{ touch {tmp_path}/tried; exit 3; }}; exec {sys.executable} {SERVER} ${{port}}"
        swapper = serve(f"""
max_loaded: 1
models:
  once: {{engine: command, cmd: [sh, -c, "{script}"]}}
  good: {{engine: echo}}
""")
        assert swapper.chat("good").status_code == 200
        refused = swapper.chat("once")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "load_failed")
        assert int(refused.headers["retry-after"]) >= 1
        assert swapper.chat("good").status_code == 200  # it had been moved out, and is back
        eventually(lambda: swapper.chat("once").status_code == 200)
        assert starts(swapper).count("once") == 2

    def test_begins_only_when_the_one_before_has_left_the_memory(self, serve, later):
        """llama-swap#97: the next model is started while the last still holds its memory."""
        swapper = serve("""
max_loaded: 1
models:
  lingering: {engine: echo, stop_grace: 20s, options: {stop_s: 1.5}}
  next: {engine: echo}
""")
        assert swapper.chat("lingering").status_code == 200
        before = psutil.Process(swapper.workers()["lingering"])
        waiting = later(swapper.chat, "next")
        until(swapper, "lingering", "stopping")
        while before.is_running() and before.status() != psutil.STATUS_ZOMBIE:
            assert len(worker_processes(swapper)) <= 1
        assert waiting.result().status_code == 200


@pytest.mark.parametrize("limit", ["max_loaded: 1", "memory: {host: 300MiB}"])
def test_memory_full_of_pinned_models_is_said_at_once(serve, limit):
    """llama.cpp PR#18373: whoever waits for a pinned model to go waits for ever."""
    swapper = serve(f"""
{limit}
models:
  pinned: {{engine: echo, pin: true, memory: {{host: 200MiB}}}}
  other: {{engine: echo, memory: {{host: 200MiB}}}}
""")
    assert swapper.chat("pinned").status_code == 200
    asked = time.monotonic()
    refused = swapper.chat("other")
    assert time.monotonic() - asked < PROMPT_S
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_large")
    assert "other" in refused.json()["error"]["message"]
    assert list(swapper.workers()) == ["pinned"]
    assert swapper.chat("pinned").status_code == 200


def test_rapid_edits_of_the_configuration_leave_one_worker_a_model(serve, tmp_path):
    """llama-swap#281: an editor saves several times a second, and every save is read."""
    file = tmp_path / "config.yaml"

    def text(number):
        return f"""
models:
  same: {{engine: echo, preload: true}}
  edited: {{engine: echo, preload: true, options: {{context: {1000 + number}}}}}
"""

    swapper = serve(text(0), "--watch")
    eventually(lambda: len(swapper.workers()) == 2)
    same = swapper.workers()["same"]
    for number in range(1, 31):
        file.write_text(text(number))
        swapper.process.send_signal(signal.SIGHUP)
        time.sleep(0.03)  # as an editor does; nothing is waited for

    def is_settled():
        models = {m["id"]: m for m in swapper.get("/v1/models").json()["data"]}
        return (
            models["edited"].get("context_length") == 1030 and len(worker_processes(swapper)) == 2
        )

    eventually(is_settled)
    assert swapper.workers()["same"] == same
    assert swapper.chat("edited").status_code == 200
    assert len(worker_processes(swapper)) == 2
