"""A real worker process, with swapper's part played by the test."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_S = 30.0
_MAIN = (sys.executable, "-m")


class WorkerProcess:
    """`python -m backends.echo`, its report, its standard input, and a client of its socket."""

    def __init__(self, options: Any, listen: str | None = None, module: str = "echo") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="worker")
        folder = Path(self._folder.name)
        self.socket = folder / "socket"
        self.listen = listen or f"unix:{self.socket}"
        path = folder / "options.json"
        path.write_text(options if isinstance(options, str) else json.dumps(options))
        self._report, theirs = os.pipe()
        self._log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [*_MAIN, f"backends.{module}", "--listen", self.listen, "--options", str(path)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(theirs,),
            env={**os.environ, "SWAPPER_REPORT_FD": str(theirs)},
        )
        os.close(theirs)
        self.events: list[dict[str, Any]] = []
        self._unread = b""

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        os.close(self._report)
        self._log.close()
        self._folder.cleanup()

    @property
    def log(self) -> str:
        """What it has written to its log."""
        return Path(self._log.name).read_text()

    def until(self, name: str) -> dict[str, Any]:
        """Read the report up to an event of this name; it must come."""
        while not (self.events and self.events[-1]["event"] == name):
            event = self._next_event()
            assert event is not None, f"no {name}, only {self.events}; log: {self.log}"
            self.events.append(event)
        return self.events[-1]

    def until_end(self) -> list[dict[str, Any]]:
        """Read the report until the worker closes it."""
        while (event := self._next_event()) is not None:
            self.events.append(event)
        return self.events

    def _next_event(self) -> dict[str, Any] | None:
        deadline = time.monotonic() + TIMEOUT_S
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._report], [], [], deadline - time.monotonic())
            assert readable, f"the report is silent; log: {self.log}"
            data = os.read(self._report, 4096)
            if not data:
                return None
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        event: dict[str, Any] = json.loads(line)
        return event

    def ready(self) -> WorkerProcess:
        """Wait until it takes requests."""
        self.until("ready")
        return self

    def client(self) -> httpx.Client:
        """A client of its Unix socket."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://worker", timeout=TIMEOUT_S)

    def wait(self, timeout: float = TIMEOUT_S) -> int:
        """The exit code."""
        return self.process.wait(timeout)
