"""The echo worker does what its options say, and gives places back when clients go."""

import json
import socket
import time
from typing import Any

import httpx
import pytest

from tests.echo.worker_process import WorkerProcess

CHAT = "/v1/chat/completions"


def talk(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def gauge(client: httpx.Client, name: str) -> int:
    lines = client.get("/metrics").text.splitlines()
    [value] = [line.split()[1] for line in lines if line.split()[0] == f"swapper_worker_{name}"]
    return int(value)


def until(client: httpx.Client, name: str, value: int) -> None:
    """Ask again until it is so: each question is a round trip, so nothing spins for long."""
    deadline = time.monotonic() + 10
    while gauge(client, name) != value:
        assert time.monotonic() < deadline, f"{name} is {gauge(client, name)}, not {value}"


@pytest.mark.parametrize(
    "fields", [{"stream": True}, {"stream": True, "n": 3}], ids=["one", "three"]
)
def test_a_client_that_leaves_a_stream_frees_its_places(fields: dict[str, Any]) -> None:
    with (
        WorkerProcess({"tokens_per_s": 1, "parallel": 3}) as worker,
        worker.ready().client() as client,
    ):
        with client.stream("POST", CHAT, json=talk("x" * 1000, **fields)) as answer:
            lines = answer.iter_lines()
            next(lines)
            until(client, "requests_running", fields.get("n", 1))
        until(client, "requests_running", 0)
        assert client.post(CHAT, json=talk("y")).status_code == 200


def test_a_client_that_leaves_without_an_answer_frees_its_place() -> None:
    with (
        WorkerProcess({"tokens_per_s": 1, "parallel": 1}) as worker,
        worker.ready().client() as client,
    ):
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=talk("x" * 1000), timeout=0.5)
        until(client, "requests_running", 0)
        assert client.post(CHAT, json=talk("y")).status_code == 200


def test_a_client_that_leaves_while_it_waits_frees_its_place() -> None:
    with (
        WorkerProcess({"tokens_per_s": 1, "parallel": 1}) as worker,
        worker.ready().client() as client,
        client.stream("POST", CHAT, json=talk("x" * 1000, stream=True)) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=talk("y"), timeout=0.5)
        until(client, "requests_waiting", 0)
        assert gauge(client, "requests_running") == 1


def test_the_rate_is_kept() -> None:
    options = {"tokens_per_s": 100, "first_token_s": 0.2}
    with WorkerProcess(options) as worker, worker.ready().client() as client:
        began = time.monotonic()
        client.post(CHAT, json=talk("x" * 30)).raise_for_status()
        assert time.monotonic() - began >= 0.2 + 29 / 100


def test_memory_is_really_taken_and_given_back_asleep() -> None:
    options = {"memory_bytes": 64 << 20, "can_sleep": True}
    with WorkerProcess(options) as worker, worker.ready().client() as client:
        awake = worker.events[-1]["memory"]["host"]
        asleep = client.post("/sleep").json()["memory"]["host"]
        assert awake - asleep > 60 << 20
        refused = client.post(CHAT, json=talk("x"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 503
        assert client.post("/wake").json()["memory"]["host"] - asleep > 60 << 20
        assert client.post(CHAT, json=talk("x")).status_code == 200


def test_a_crash_in_the_middle_of_an_answer() -> None:
    with WorkerProcess({"exit_after_tokens": 3}) as worker, worker.ready().client() as client:
        lines = []
        with (
            client.stream("POST", CHAT, json=talk("abcdef", stream=True)) as answer,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            lines += list(answer.iter_lines())
        assert "data: [DONE]" not in lines
        assert worker.wait() == 1
        assert worker.until_end()[-1]["event"] == "ready"


@pytest.mark.parametrize("n", [1, 2])
def test_an_engine_that_breaks_ends_its_streams_without_done_and_then_the_worker(n: int) -> None:
    with WorkerProcess({"break_after_tokens": 3}) as worker, worker.ready().client() as client:
        body = talk("abcdef", stream=True, n=n)
        with client.stream("POST", CHAT, json=body) as answer:
            lines = [line for line in answer.iter_lines() if line]
        assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "crashed"
        assert "data: [DONE]" not in lines
        assert worker.wait() == 1
        assert worker.until_end()[-1] == {
            "event": "failed",
            "kind": "crashed",
            "reason": "The engine was told to break.",
        }


def test_an_engine_that_breaks_before_the_first_token_has_its_true_status() -> None:
    with WorkerProcess({"break_after_tokens": 3}) as worker, worker.ready().client() as client:
        answer = client.post(CHAT, json=talk("abcdef"))
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "crashed"
        assert worker.wait() == 1


def test_a_worker_that_does_not_end_on_term() -> None:
    with WorkerProcess({"ignore_term": True}) as worker:
        worker.ready().process.terminate()
        while _is_listening(worker):
            pass
        assert worker.process.poll() is None


def _is_listening(worker: WorkerProcess) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(worker.socket)) == 0


def test_a_worker_that_takes_its_time_to_end() -> None:
    with WorkerProcess({"stop_s": 0.5}) as worker:
        worker.ready()
        began = time.monotonic()
        worker.process.terminate()
        assert worker.wait() == 0
        assert time.monotonic() - began >= 0.5


def test_the_last_user_message_is_what_comes_back() -> None:
    with WorkerProcess({}) as worker, worker.ready().client() as client:
        messages = [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "answer"},
            {"role": "user", "content": "second"},
            {"role": "tool", "content": "result"},
        ]
        answer = client.post(CHAT, json={"messages": messages}).json()
        assert answer["choices"][0]["message"]["content"] == "second"
