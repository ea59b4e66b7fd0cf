"""A configuration that changes under load."""

from __future__ import annotations

import json
import signal
import threading

import httpx
import pytest
from click.testing import CliRunner

from swapper.cli import main
from tests.system.conftest import PATIENCE_S, eventually

BEFORE = """
models:
  same: {engine: echo, options: {tokens_per_s: 200}}
  other: {engine: echo, options: {load_s: 0.1}}
"""
AFTER = """
models:
  same: {engine: echo, options: {tokens_per_s: 200}}
  other: {engine: echo, options: {load_s: 0.2}}
  fresh: {engine: echo, preload: true}
"""


@pytest.fixture
def swapper(serve, tmp_path):
    swapper = serve(BEFORE)
    swapper.write = (tmp_path / "config.yaml").write_text
    return swapper


def command(swapper, *arguments):
    return CliRunner().invoke(main, arguments, env={"SWAPPER_URL": swapper.url})


def test_unchanged_models_go_on_changed_ones_start_anew(swapper):
    swapper.chat("same")
    swapper.chat("other")
    before = swapper.workers()
    swapper.write(AFTER)
    assert command(swapper, "reload").output == "new: fresh; changed: other\n"
    assert swapper.chat("other").status_code == 200
    after = eventually(lambda: (w := swapper.workers()) and "fresh" in w and w)
    assert after["same"] == before["same"]
    assert after["other"] != before["other"]
    swapper.write(BEFORE)
    assert command(swapper, "reload").output == "changed: other; removed: fresh\n"
    assert swapper.chat("fresh").status_code == 404


def test_a_wrong_configuration_is_refused_whole(swapper):
    swapper.chat("same")
    before = swapper.workers()
    swapper.write("models:\n  same: {engine: echo}\n  other: {engin: echo}\n")
    refused = command(swapper, "reload")
    assert refused.exit_code == 1
    assert "config.yaml:3" in refused.output
    swapper.process.send_signal(signal.SIGHUP)
    eventually(lambda: "not taken over" in swapper.output())
    assert swapper.workers() == before
    assert swapper.chat("other").status_code == 200


def test_hup_and_watching_the_file_reload_too(serve, tmp_path):
    swapper = serve(BEFORE, "--watch")
    (tmp_path / "config.yaml").write_text(AFTER)
    eventually(lambda: "fresh" in swapper.get("/v1/models").text)
    (tmp_path / "config.yaml").write_text(BEFORE)
    swapper.process.send_signal(signal.SIGHUP)
    eventually(lambda: "fresh" not in swapper.get("/v1/models").text)


def test_no_stream_is_cut_over_twenty_reloads(swapper):
    """Sixteen clients stream, from a model that stays and from one that changes each time."""
    failures, done = [], threading.Event()

    def stream(model):
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "x" * 60}]}
        url = f"{swapper.url}/v1/chat/completions"
        while not done.is_set():
            with httpx.stream("POST", url, json=body, timeout=PATIENCE_S) as answer:
                lines = [line for line in answer.iter_lines() if line.startswith("data: {")]
                text = "".join(
                    json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                    for line in lines
                    if '"choices":[{' in line
                )
                if answer.status_code != 200 or text != "x" * 60:
                    failures.append((answer.status_code, lines[-1:], text))

    clients = [threading.Thread(target=stream, args=[("same", "other")[n % 2]]) for n in range(16)]
    for client in clients:
        client.start()
    for n in range(20):
        swapper.write((AFTER, BEFORE)[n % 2])
        assert command(swapper, "reload").exit_code == 0
    done.set()
    for client in clients:
        client.join()
    assert failures == []


def test_why_tells_who_was_moved_out_for_whom(serve):
    swapper = serve("max_loaded: 1\nmodels: {a: {engine: echo}, b: {engine: echo}}")
    swapper.chat("a")
    swapper.chat("b")
    told = command(swapper, "why", "a").output
    assert "b needs a place in max_loaded" in told
