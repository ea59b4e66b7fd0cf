"""The worker as swapper starts it: a process, a report descriptor, HTTP on a Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("worker", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class Worker:
    def __init__(self, process: subprocess.Popen[bytes], report: Any, path: str) -> None:
        self.process, self.report, self.path = process, report, path

    def events(self) -> Iterator[dict[str, Any]]:
        for line in self.report:
            yield json.loads(line)

    def last_event(self) -> dict[str, Any]:
        """The first that is no progress."""
        return next(event for event in self.events() if event["event"] != "loading")

    def post(self, route: str, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
        connection = Connection(self.path)
        connection.request(
            "POST", route, json.dumps(body), {"content-type": "application/json"} | headers
        )
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, json.loads(data) if data[:1] in b"{[" else data.decode()

    def get(self, route: str) -> tuple[int, str]:
        connection = Connection(self.path)
        connection.request("GET", route)
        response = connection.getresponse()
        data = response.read().decode()
        connection.close()
        return response.status, data


@contextmanager
def started(folder: Path, **options: Any) -> Iterator[Worker]:
    read, write = os.pipe()
    options_file, path = folder / "options.json", str(folder / "s")
    options_file.write_text(json.dumps({"model": "tiny", "threads": 1} | options))
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "backends.llamacpp",
            "--listen",
            f"unix:{path}",
            "--options",
            options_file,
        ],
        env=os.environ | {"SWAPPER_REPORT_FD": str(write)},
        pass_fds=[write],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    with process, open(read, encoding="utf-8") as report:
        try:
            yield Worker(process, report, path)
        finally:
            process.kill()


def test_it_loads_serves_and_drains(tmp_path: Path, tiny: Path) -> None:
    with started(tmp_path, path=str(tiny), context=512) as worker:
        events = []
        for event in worker.events():
            events.append(event)
            if event["event"] != "loading":
                break
        progress = [event["progress"] for event in events[:-1]]
        assert progress == sorted(progress)
        assert events[-1]["event"] == "ready"
        assert events[-1]["context"] == 512
        assert set(events[-1]["capabilities"]) == {"chat", "completions", "tools"}
        assert events[-1]["memory"]["host"] > 1_000_000
        assert worker.get("/health")[0] == 200

        body = {"model": "tiny", "prompt": "hello", "max_tokens": 8, "temperature": 0}
        status, answer = worker.post("/v1/completions", body)
        assert status == 200
        assert answer["usage"]["completion_tokens"] <= 8
        messages = [{"role": "user", "content": "hello"}]
        status, answer = worker.post(
            "/v1/chat/completions", {"messages": messages, "max_tokens": 4}
        )
        assert status == 200
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert worker.post("/v1/embeddings", {"model": "tiny", "input": "hello"})[0] == 404
        assert worker.post("/threads", {"threads": 2})[0] == 200
        assert "llamacpp:tokens_predicted_total" in worker.get("/metrics")[1]

        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(20) == 0


def test_a_stream_left_stops_the_sequence(tmp_path: Path, tiny: Path) -> None:
    with started(tmp_path, path=str(tiny), parallel=1) as worker:
        assert worker.last_event()["event"] == "ready"
        body = {"prompt": "hello", "max_tokens": 2000, "stream": True, "ignore_eos": True}
        connection = Connection(worker.path)
        connection.request(
            "POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"}
        )
        response = connection.getresponse()
        assert response.read(20).startswith(b"data: ")
        response.close()
        connection.close()
        status, answer = worker.post("/v1/completions", body | {"max_tokens": 4, "stream": False})
        assert (status, answer["usage"]["completion_tokens"]) == (200, 4)
        metrics = dict(
            line.split() for line in worker.get("/metrics")[1].splitlines() if line[0] != "#"
        )
        assert float(metrics["llamacpp:tokens_predicted_total"]) < 2004


@pytest.mark.parametrize(
    ("content", "options", "kind"),
    [
        (None, {}, "missing_file"),
        (b"no model", {}, "bad_file"),
        (b"GGUF\3\0\0\0", {}, "bad_file"),
        (b"GGUF", {"cache_type_k": "q9"}, "bad_options"),
    ],
)
def test_a_failed_load_is_one_sentence(tmp_path: Path, content, options, kind) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with started(tmp_path, path=str(path), **options) as worker:
        event = worker.last_event()
        assert (event["event"], event["kind"]) == ("failed", kind)
        assert "Traceback" not in event["reason"]
        assert worker.process.wait(20) != 0
        assert b"Traceback" not in worker.process.stderr.read()


def test_it_ends_with_standard_input(tmp_path: Path, tiny: Path) -> None:
    with started(tmp_path, path=str(tiny)) as worker:
        assert worker.last_event()["event"] == "ready"
        worker.process.stdin.close()
        assert worker.process.wait(20) == 0
