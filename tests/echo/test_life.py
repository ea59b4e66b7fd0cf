"""A worker's life: it reports, drains on TERM, ends with its standard input, says why it cannot serve."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.echo.worker_process import WorkerProcess

CHAT = "/v1/chat/completions"
LONG = {"messages": [{"role": "user", "content": "x" * 200}], "stream": True}


def test_it_reports_loading_and_then_ready() -> None:
    with WorkerProcess({"model": "m", "context": 777, "load_s": 0.2}) as worker:
        ready = worker.ready().events[-1]
        assert ready["context"] == 777
        assert set(ready["capabilities"]) == {"chat", "completions", "embeddings", "tools"}
        assert ready["memory"]["host"] > 5_000_000
        progress = [event["progress"] for event in worker.events[:-1]]
        assert progress == sorted(progress)
        assert (progress[0], progress[-1]) == (0.0, 1.0)
        assert len(progress) > 2


def test_nobody_can_connect_before_it_is_ready() -> None:
    with WorkerProcess({"hang_load": True}) as worker:
        worker.until("loading")
        with (
            socket.socket(socket.AF_UNIX) as client,
            pytest.raises(OSError, match=r"refused|No such"),
        ):
            client.connect(str(worker.socket))


def test_a_unix_socket_is_for_its_owner_alone() -> None:
    with WorkerProcess({}) as worker:
        worker.ready()
        assert stat.S_IMODE(worker.socket.stat().st_mode) == 0o600


def test_term_ends_an_idle_worker_and_takes_its_socket_away() -> None:
    with WorkerProcess({}) as worker:
        worker.ready()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert not worker.socket.exists()
        assert worker.log == ""


def test_term_while_loading_ends_it_at_once() -> None:
    with WorkerProcess({"hang_load": True}) as worker:
        worker.until("loading")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait(5) in (0, -signal.SIGTERM)  # the second, if it came before anything else


def test_term_lets_answers_finish_and_takes_nothing_new() -> None:
    with WorkerProcess({"tokens_per_s": 200}) as worker, worker.ready().client() as client:
        with client.stream("POST", CHAT, json=LONG) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            worker.process.send_signal(signal.SIGTERM)
            while client.get("/health").status_code == 200:
                pass
            refused = client.post(CHAT, json=LONG)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "unavailable"
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        text = "".join(_content(line) for line in rest[:-1])
        assert text == "x" * 200
        assert worker.wait() == 0


def _content(line: str) -> str:
    delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
    return str(delta.get("content", ""))


def test_the_end_of_standard_input_ends_it_whatever_is_in_flight() -> None:
    with WorkerProcess({"tokens_per_s": 1}) as worker, worker.ready().client() as client:
        with client.stream("POST", CHAT, json=LONG) as answer:
            assert answer.status_code == 200
            _close_stdin(worker)
            assert worker.wait(1) == 0
            answer.close()
        assert not worker.socket.exists()


def test_the_end_of_standard_input_ends_a_load() -> None:
    with WorkerProcess({"hang_load": True}) as worker:
        worker.until("loading")
        _close_stdin(worker)
        assert worker.wait(1) == 0


def _close_stdin(worker: WorkerProcess) -> None:
    assert worker.process.stdin is not None
    worker.process.stdin.close()


@pytest.mark.parametrize("kind", ["out_of_memory", "bad_file", "missing_file", "unsupported"])
def test_a_load_that_fails_says_why(kind: str) -> None:
    with WorkerProcess({"fail_load": kind}) as worker:
        failed = worker.until("failed")
        assert failed["kind"] == kind
        assert kind in failed["reason"]
        assert worker.wait() == 1
        assert [event["event"] for event in worker.until_end()] == ["loading", "failed"]


def test_a_load_that_breaks_is_a_crash_whose_trace_stays_in_the_log() -> None:
    with WorkerProcess({"fail_load": "bug"}) as worker:
        failed = worker.until("failed")
        assert failed["kind"] == "crashed"
        assert "Traceback" not in failed["reason"]
        assert worker.wait() == 1
        assert "Traceback" in worker.log


def test_a_process_that_just_ends_reports_nothing() -> None:
    with WorkerProcess({"fail_load": "exit"}) as worker:
        assert all(event["event"] == "loading" for event in worker.until_end())
        assert worker.wait() == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": 0}, "context must be at least 1"),
        ({"load_s": "long"}, "load_s must be of type float"),
        ({"parallel": True}, "parallel must be of type int"),
        ({"load_s": -1}, "load_s must not be negative"),
        ("{", "not valid JSON"),
        ("[]", "one JSON object"),
    ],
)
def test_bad_options(options: Any, words: str) -> None:
    with WorkerProcess(options) as worker:
        failed = worker.until("failed")
        assert failed["kind"] == "bad_options"
        assert words in failed["reason"]
        assert worker.wait() == 2


def test_options_of_other_engines_are_ignored() -> None:
    options = {"path": "/x", "gpu_layers": 3, "threads": 2, "kv_tokens": None, "context": None}
    with WorkerProcess(options) as worker:
        assert worker.ready().events[-1]["context"] == 4096


@pytest.mark.parametrize("options", [{}, {"hang_load": True}], ids=["loaded", "still loading"])
def test_a_port_that_is_taken(options: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"tcp:127.0.0.1:{other.getsockname()[1]}"
        with WorkerProcess(options, listen) as worker:
            assert worker.until("failed")["kind"] == "port_taken"
            assert worker.wait() == 1


def test_a_unix_socket_that_is_answered_is_taken() -> None:
    with WorkerProcess({}) as first:
        first.ready()
        with WorkerProcess({}, first.listen) as second:
            assert second.until("failed")["kind"] == "port_taken"
            assert second.wait() == 1
        with first.client() as client:
            assert client.get("/health").status_code == 200


def test_a_unix_socket_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with WorkerProcess({}, f"unix:{path}") as worker:
        worker.ready()


@pytest.mark.parametrize(
    "listen",
    ["8080", "tcp:8080", "tcp:127.0.0.1:99999", "unix:/nowhere/at/all", "tcp:no.such.invalid:1"],
)
def test_an_address_that_is_none(listen: str) -> None:
    with WorkerProcess({}, listen) as worker:
        assert worker.until("failed")["kind"] == "bad_options"
        assert worker.wait() == 2


@pytest.mark.parametrize(
    "arguments", [[], ["--listen", "unix:/x"], ["--options", "/x", "--port", "1"]]
)
def test_a_command_line_that_is_wrong(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backends.echo", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_by_hand_it_needs_no_report_and_no_standard_input(tmp_path: Path) -> None:
    options, path = tmp_path / "options", tmp_path / "socket"
    options.write_text("{}")
    process = subprocess.Popen(
        [sys.executable, *f"-m backends.echo --listen unix:{path} --options {options}".split()],
        stdin=subprocess.DEVNULL,
    )
    try:
        _connect(path)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def _connect(path: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except OSError:
                continue
            return
    pytest.fail("nobody listens")


def test_a_report_that_nobody_reads_is_no_error() -> None:
    with WorkerProcess({"load_s": 0.3}) as worker, open(os.devnull) as nothing:
        worker.until("loading")
        os.dup2(nothing.fileno(), worker._report)  # the reading end is gone
        _connect(worker.socket)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
