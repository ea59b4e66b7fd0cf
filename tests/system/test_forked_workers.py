"""A server whose paged workers are forked from a parent: whoever is killed, nothing is left."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.system.conftest import all_gone, eventually

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")

DEMO = Path(__file__).parents[2] / "swapper" / "demo"
CONFIG = f"""
models:
  one: {{engine: paged, path: {DEMO}/demo-chat, context: 256}}
  two: {{engine: paged, path: {DEMO}/demo-story, context: 256}}
"""


def parents(swapper) -> list[psutil.Process]:
    """The processes that fork workers. A worker shows its own command line."""
    children = swapper.descendants()
    return [child for child in children if "backends.serving.parent" in child.cmdline()]


def ask_both(swapper) -> dict[str, int]:
    """Both models, and their workers."""
    for model in ("one", "two"):
        assert swapper.chat(model, max_tokens=8).status_code == 200
    return swapper.workers()


def test_both_are_forked_and_gone_with_the_proxy(serve):
    swapper = serve(CONFIG)
    workers = ask_both(swapper)
    [parent] = parents(swapper)
    for pid in workers.values():
        assert psutil.Process(pid).ppid() == swapper.process.pid
        assert "backends.paged" in psutil.Process(pid).cmdline()
    family = swapper.descendants()
    assert {*workers.values(), parent.pid} <= {process.pid for process in family}
    swapper.stop(signal.SIGKILL)
    eventually(lambda: all_gone(family), within_s=2.0)
    again = serve(CONFIG, "--listen", swapper.url.removeprefix("http://"))
    ask_both(again)
    family = again.descendants()
    assert again.stop(signal.SIGTERM) == 0
    assert all_gone(family)


def test_a_proxy_killed_while_the_parent_imports(serve):
    swapper = serve(CONFIG.replace("context: 256", "context: 256, preload: true"))
    eventually(lambda: swapper.descendants() or None)
    family = swapper.descendants()
    swapper.stop(signal.SIGKILL)
    eventually(lambda: all_gone(family), within_s=2.0)


def test_a_killed_worker_is_forked_anew_and_a_killed_parent_is_not_missed(serve):
    swapper = serve(CONFIG)
    workers = ask_both(swapper)
    [parent] = parents(swapper)
    os.kill(workers["one"], signal.SIGKILL)
    eventually(lambda: "one" not in swapper.workers())
    assert ask_both(swapper)["one"] != workers["one"]
    assert parents(swapper) == [parent]
    parent.kill()
    eventually(lambda: not psutil.pid_exists(parent.pid))
    assert ask_both(swapper)["two"] == workers["two"]
    os.kill(workers["two"], signal.SIGKILL)  # the other one: who fails twice is made to wait
    eventually(lambda: "two" not in swapper.workers())
    ask_both(swapper)
    assert len(parents(swapper)) == 1
    zombies = [p for p in swapper.descendants() if p.status() == psutil.STATUS_ZOMBIE]
    assert not zombies
