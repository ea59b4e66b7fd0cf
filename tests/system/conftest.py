"""A real `swapper serve`, started as a user would, with a state folder of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

PATIENCE_S = 30.0


class Swapper:
    """One server process. Its output goes to a file, so that nothing blocks it."""

    def __init__(self, log: Path, arguments: list[str], env: dict[str, str]) -> None:
        self.log = log
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "swapper", "serve", *arguments],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, **env},
            )  # fmt: skip
        self.url = ""

    def wait_until_up(self) -> Swapper:
        """Until it says where it listens."""
        found = eventually(
            lambda: re.search(r'"addresses":\s*\["([^"]+)"', self.output()) or self.dead()
        )
        assert not isinstance(found, int), f"it ended with {found}: {self.output()}"
        self.url = found.group(1)
        return self

    def dead(self) -> int | None:
        """Its exit status once it ended; a status of 0 counts too."""
        return self.process.poll()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE_S)

    def chat(self, model: str, text: str = "hello", **fields: object) -> httpx.Response:
        """One chat completion, not streamed."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)

    def workers(self) -> dict[str, int]:
        """First process of each loaded model."""
        running = self.get("/running").json()["running"]
        return {worker["model"]: worker["pid"] for worker in running if worker["pid"]}

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def serving(folder: Path, config: str) -> Iterator[Swapper]:
    """A server of this configuration on a free port, all of it in the folder."""
    path = folder / "config.yaml"
    path.write_text(config)
    env = {"XDG_STATE_HOME": str(folder / "state"), "XDG_RUNTIME_DIR": ""}
    arguments = ["--config", str(path), "--listen", "127.0.0.1:0"]
    swapper = Swapper(folder / "swapper.log", arguments, env)
    try:
        yield swapper.wait_until_up()
    finally:
        if swapper.dead() is None:
            swapper.stop()


@pytest.fixture
def serve(tmp_path) -> Callable[..., Swapper]:
    """Starts servers from the text of a configuration, on a free port; ends them after the test."""
    started = []

    def serve(text: str | None, *arguments: str, wait: bool = True, **env: str) -> Swapper:
        if text is not None:
            (tmp_path / "config.yaml").write_text(text)
            arguments = ("--config", str(tmp_path / "config.yaml"), *arguments)
        if "--listen" not in arguments:
            arguments = (*arguments, "--listen", "127.0.0.1:0")
        env = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_RUNTIME_DIR": "", **env}
        log = tmp_path / f"swapper-{len(started)}.log"
        swapper = Swapper(log, list(arguments), env)
        started.append(swapper)
        return swapper.wait_until_up() if wait else swapper

    yield serve
    for swapper in started:
        if swapper.process.poll() is None:
            swapper.process.kill()
            swapper.process.wait()


def eventually(condition: Callable[[], object], within_s: float = PATIENCE_S) -> object:
    """The condition's first value that is neither None nor False; fails past the deadline."""
    deadline = time.monotonic() + within_s
    while (value := condition()) is None or value is False:
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
    return value


def all_gone(processes: list[psutil.Process]) -> bool:
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
