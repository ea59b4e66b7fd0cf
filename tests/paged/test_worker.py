"""The worker as swapper starts it: a process, a report descriptor, HTTP on a Unix socket."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.paged.sequence import BLOCK_SIZE


@dataclass
class Worker:
    process: subprocess.Popen[bytes]
    first: dict[str, Any]  # the first event that is no progress
    http: httpx.Client

    def complete(self, prompt: str, **more: Any) -> httpx.Response:
        body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True, **more}
        return self.http.post("/v1/completions", json=body)

    def metric(self, name: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(f"vllm:{name}{{")).split()[-1])


@contextmanager
def started(folder: Path, **options: Any) -> Iterator[Worker]:
    given = {"model": "tiny", "threads": 1, "devices": [], **options}
    file, address = folder / "options.json", folder / "worker.sock"
    file.write_text(json.dumps(given))
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "backends.paged", "--listen", f"unix:{address}", "--options", file],
        cwd=Path(__file__).parents[2], env=os.environ | {"SWAPPER_REPORT_FD": str(write)},
        pass_fds=[write], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with open(read, encoding="utf-8") as report:
        events = (json.loads(line) for line in report)
        first = next(event for event in events if event["event"] != "loading")
        transport = httpx.HTTPTransport(uds=str(address))
        with httpx.Client(transport=transport, base_url="http://worker", timeout=30) as http:
            yield Worker(process, first, http)
    assert process.stdin is not None
    process.stdin.close()
    process.wait(10)


@pytest.fixture
def worker(tmp_path: Path, tiny: Path) -> Iterator[Worker]:
    with started(tmp_path, path=str(tiny), context=2000, kv_tokens=4000) as running:
        yield running


def test_it_says_what_it_is(worker: Worker) -> None:
    assert worker.first["event"] == "ready"
    assert worker.first["context"] == 2000
    assert worker.first["memory"]["host"] > 100 << 20
    assert {"chat", "completions", "sleep"} <= set(worker.first["capabilities"])


def test_answers_streams_and_scores(worker: Worker) -> None:
    whole = worker.complete("hello", logprobs=1, echo=True).json()["choices"][0]
    assert whole["finish_reason"] == "length"
    assert len(whole["logprobs"]["tokens"]) == 5 + 8
    with worker.http.stream(
        "POST",
        "/v1/completions",
        json={"prompt": "hello", "max_tokens": 8, "temperature": 0, "ignore_eos": True, "stream": True},
    ) as response:  # fmt: skip
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
    pieces = [json.loads(event)["choices"][0]["text"] for event in events]
    assert "hello" + "".join(pieces) == whole["text"]
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "seed": 1, "n": 2}
    answers = worker.http.post("/v1/chat/completions", json=chat).json()["choices"]
    assert len(answers) == 2


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(worker: Worker) -> None:
    answer = worker.complete("x" * 2500)
    assert answer.status_code == 400
    assert "2000" in answer.json()["error"]["message"]
    assert "2500" in answer.json()["error"]["message"]


def test_who_leaves_stops_the_sequence(worker: Worker) -> None:
    body = {"prompt": "hello", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    with worker.http.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_lines())
    # A step is over in milliseconds, and 1900 of them are not.
    for _ in range(1000):
        if worker.metric("num_requests_running") == 0:
            break
    assert worker.metric("num_requests_running") == 0
    assert worker.metric("generation_tokens_total") < 1900


def test_it_sleeps_and_wakes(worker: Worker) -> None:
    before = worker.complete("hello").json()["choices"][0]["text"]
    assert worker.http.post("/sleep").status_code == 200
    assert worker.complete("hello").status_code == 503
    assert worker.http.post("/wake").status_code == 200
    assert worker.complete("hello").json()["choices"][0]["text"] == before


def test_beginnings_are_shared_within_a_key_only(worker: Worker) -> None:
    prompt = "y" * 100
    for key, cached in (("a", 0), ("b", 0), ("a", 100 // BLOCK_SIZE * BLOCK_SIZE)):
        worker.http.headers["x-swapper-key-id"] = key
        usage = worker.complete(prompt).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == cached


def test_term_lets_answers_end(worker: Worker) -> None:
    body = {"prompt": "hello", "max_tokens": 50, "ignore_eos": True, "stream": True}
    with worker.http.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        worker.process.send_signal(signal.SIGTERM)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert worker.process.wait(10) == 0


def test_it_ends_with_its_standard_input(worker: Worker) -> None:
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.process.wait(10) == 0


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"devices": ["cuda:7"]}, "bad_options"),
        ({"kv_bytes": 1}, "bad_options"),
        ({"dtype": "int3"}, "bad_options"),
        ({"path": "/nowhere/at/all"}, "missing_file"),
    ],
)
def test_what_it_cannot_do_is_reported(
    tmp_path: Path, tiny: Path, options: dict[str, Any], kind: str
) -> None:
    with started(tmp_path, **{"path": str(tiny), **options}) as running:
        assert (running.first["event"], running.first["kind"]) == ("failed", kind)
        assert running.process.wait(10) == (2 if kind == "bad_options" else 1)


@pytest.mark.parametrize(
    ("file", "content", "kind"),
    [
        ("config.json", b'{"architectures": ["MambaForCausalLM"]}', "unsupported"),
        ("tokenizer.json", b"\xff\xfe", "bad_file"),
        ("model.safetensors", b"\x80\x04pickle", "bad_file"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../x.safetensors"}}', "bad_file"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_told_in_a_sentence(
    tmp_path: Path, tiny: Path, file: str, content: bytes, kind: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / file).write_bytes(content)
    with started(tmp_path, path=str(folder)) as running:
        assert (running.first["event"], running.first["kind"]) == ("failed", kind)
        assert "\n" not in running.first["reason"]
        assert str(tmp_path) not in running.first["reason"]
        assert running.process.wait(10) == 1


def test_what_is_not_served_is_named_before_the_vocabulary_is_read(
    tmp_path: Path, tiny: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    (folder / "tokenizer.json").unlink()
    with started(tmp_path, path=str(folder)) as running:
        assert running.first["kind"] == "unsupported"
        assert "Mamba" in running.first["reason"]
