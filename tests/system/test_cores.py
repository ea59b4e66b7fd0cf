"""CPU models that are busy at once share the cores while they run; one that is alone has them all."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import httpx
import psutil
import pytest

import swapper as package
from tests.system.conftest import PATIENCE_S, eventually

pytest.importorskip("llama_cpp")

DEMO = Path(package.__file__).with_name("demo")
CORES = len(psutil.Process().cpu_affinity())


def threads_of(swapper, model):
    """What the worker itself says, asked behind swapper's back: no request that counts as work."""
    command = psutil.Process(swapper.workers()[model]).cmdline()
    path = command[command.index("--listen") + 1].removeprefix("unix:")
    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as worker:
        found = re.search(
            r"^llamacpp:threads (\d+)", worker.get("http://w/metrics").text, re.MULTILINE
        )
    return int(found.group(1))


class Busy:
    """A client that asks a model again and again."""

    def __init__(self, swapper, model):
        self.swapper, self.model = swapper, model
        self.done = threading.Event()
        self.statuses = set()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.done.is_set():
            answer = self.swapper.chat(self.model, "Tell me a story.", max_tokens=64)
            self.statuses.add(answer.status_code)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join(PATIENCE_S)


@pytest.mark.skipif(CORES < 2, reason="there is but one core")
def test_two_busy_models_share_the_cores_and_one_alone_has_them_all(serve):
    swapper = serve(f"""
models:
  one: {{engine: llamacpp, path: {DEMO}/demo-chat.gguf, context: 512}}
  two: {{engine: llamacpp, path: {DEMO}/demo-chat.gguf, context: 512}}
""")
    with Busy(swapper, "one") as one:
        eventually(lambda: "one" in swapper.workers() and bool(one.statuses))
        assert threads_of(swapper, "one") == CORES
        before = swapper.workers()["one"]
        with Busy(swapper, "two") as two:
            eventually(lambda: "two" in swapper.workers() and bool(two.statuses))
            eventually(lambda: threads_of(swapper, "one") + threads_of(swapper, "two") == CORES)
        eventually(lambda: threads_of(swapper, "one") == CORES)
        assert swapper.workers()["one"] == before
    assert one.statuses == two.statuses == {200}
