"""The requests of Ollama's command line and of VS Code, as they are on the wire, to an open server."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPResponse
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from tests.clients.conftest import demo_models
from tests.system.conftest import PATIENCE_S, Swapper, eventually, serving

AGENT = "ollama/0.30.0 (amd64 linux) Go/go1.24.1"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")  # Go reads no other


class Got(NamedTuple):
    status: int
    type: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """As the command line reads them: every line is JSON, and none is empty."""
        assert self.type == "application/x-ndjson"
        return [json.loads(line) for line in self.body.removesuffix(b"\n").split(b"\n")]


class CommandLine:
    """Sends what Go's client sends, on one connection."""

    def __init__(self, url: str) -> None:
        self._place = urlsplit(url)
        assert self._place.hostname
        address = self._place.hostname, self._place.port
        self._socket = socket.create_connection(address, timeout=PATIENCE_S)

    def ask(self, method: str, path: str, body: str | None = None) -> Got:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._place.netloc}",
            f"User-Agent: {AGENT}",
        ]
        if body is not None:
            lines.append(f"Content-Length: {len(body.encode())}")
        is_stream = path in ("/api/generate", "/api/chat", "/api/pull")
        lines.append(f"Accept: {'application/x-ndjson' if is_stream else 'application/json'}")
        if body is not None or not is_stream:
            lines.append("Content-Type: application/json")
        lines += ["Accept-Encoding: gzip", "", body or ""]
        self._socket.sendall("\r\n".join(lines).encode())
        response = HTTPResponse(self._socket, method=method)
        response.begin()
        return Got(response.status, response.headers.get_content_type(), response.read())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swapper]:
    echo = "models:\n  echo: {engine: echo, options: {load_s: 0.2}}\n"
    with serving(tmp_path_factory.mktemp("open"), echo + demo_models()) as swapper:
        yield swapper


@pytest.fixture
def cli(server: Swapper) -> Iterator[CommandLine]:
    """After the question whether anybody is there, with which every command begins."""
    cli = CommandLine(server.url)
    assert cli.ask("HEAD", "/") == Got(200, "text/plain", b"")
    yield cli
    cli.close()


def test_list(cli: CommandLine) -> None:
    models = cli.ask("GET", "/api/tags").json["models"]
    assert "echo" in [model["name"] for model in models]
    for model in models:
        assert re.fullmatch("[0-9a-f]{64}", model["digest"])
        assert TIME.fullmatch(model["modified_at"])
        assert isinstance(model["size"], int)
        assert isinstance(model["details"]["families"], list)
    assert len({model["digest"] for model in models}) == len(models)


def test_run_then_ps_then_stop(cli: CommandLine) -> None:
    shown = cli.ask("POST", "/api/show", '{"model":"echo","system":"","template":"","verbose":false,"options":null,"name":"echo"}')  # fmt: skip
    assert shown.status == 200
    assert TIME.fullmatch(shown.json["modified_at"])
    loaded = cli.ask(
        "POST",
        "/api/generate",
        '{"model":"echo","prompt":"","suffix":"","system":"","template":"","options":null}',
    )
    assert loaded.status == 200
    assert (loaded.lines[-1]["done"], loaded.lines[-1]["done_reason"]) == (True, "load")
    answer = cli.ask(
        "POST",
        "/api/chat",
        '{"model":"echo","messages":[{"role":"user","content":"hello there"}],"options":{}}',
    )
    assert "".join(line["message"]["content"] for line in answer.lines) == "hello there"
    assert [line["done"] for line in answer.lines[-2:]] == [False, True]
    last = answer.lines[-1]
    for name in ("total", "load", "prompt_eval", "eval"):
        assert isinstance(last[f"{name}_duration"], int)
    assert last["prompt_eval_count"] > 0

    (running,) = cli.ask("GET", "/api/ps").json["models"]
    assert running["name"] == "echo"
    assert len(running["digest"]) == 64
    assert running["size"] > 0
    assert running["size_vram"] == 0  # "100% CPU"
    assert TIME.fullmatch(running["expires_at"])
    assert datetime.fromisoformat(running["expires_at"]) > datetime.now(UTC)  # not "Stopping..."

    assert cli.ask("POST", "/api/show", '{"model":"echo"}').status == 200
    stopped = cli.ask(
        "POST",
        "/api/generate",
        '{"model":"echo","prompt":"","suffix":"","system":"","template":"","keep_alive":0,"options":null}',
    )
    assert stopped.lines[-1]["done_reason"] == "unload"
    assert eventually(lambda: cli.ask("GET", "/api/ps").json["models"] == [])


def test_a_prompt_on_the_command_line(cli: CommandLine) -> None:
    found = cli.ask(
        "POST",
        "/api/generate",
        '{"model":"echo","prompt":"say it","suffix":"","system":"","template":"","context":[],'
        '"keep_alive":"5m0s","options":{}}',
    )
    assert "".join(line["response"] for line in found.lines) == "say it"
    assert all(isinstance(number, int) for number in found.lines[-1]["context"])


def test_show(cli: CommandLine) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    shown = cli.ask("POST", "/api/show", '{"model":"demo-chat","verbose":false}').json
    info = shown["model_info"]
    assert (info["general.architecture"], info["llama.embedding_length"]) == ("llama", 256)
    assert info["general.parameter_count"] > 1_000_000
    assert shown["details"]["parameter_size"].endswith("M")
    assert shown["license"] == "MIT"
    assert shown["modelfile"].splitlines()[1] == "FROM demo-chat"


def test_a_model_that_is_not_there(cli: CommandLine) -> None:
    """`run` asks, is told 404, pulls, and shows what that says."""
    shown = cli.ask("POST", "/api/show", '{"model":"nope"}')
    assert shown.status == 404
    assert "not found" in shown.json["error"]
    pulled = cli.ask("POST", "/api/pull", '{"model":"nope","name":"nope"}')
    assert pulled.status == 501
    assert "swapper pull" in pulled.json["error"]
    assert cli.ask("DELETE", "/api/delete", '{"model":"echo"}').status == 501
    assert cli.ask("HEAD", f"/api/blobs/sha256:{'0' * 64}").status == 501


def test_nothing_is_loaded_for_a_look(server: Swapper, cli: CommandLine) -> None:
    before = server.workers()
    for path in ("/api/tags", "/api/ps", "/api/version"):
        assert cli.ask("GET", path).status == 200
        assert cli.ask("HEAD", path).status == 200
    cli.ask("POST", "/api/show", '{"model":"echo"}')
    assert server.workers() == before


def test_vs_code(server: Swapper) -> None:
    """It looks at the version, lists, looks at each model, and then chats in OpenAI's words."""
    headers = {"user-agent": "GitHubCopilotChat/0.30.0"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=PATIENCE_S) as client:
        version = client.get("/api/version").json()["version"]
        assert tuple(map(int, version.split("."))) >= (0, 6, 4)
        for model in client.get("/api/tags").json()["models"]:
            shown = client.post("/api/show", json={"model": model["model"]}).json()
            assert "tools" in shown["capabilities"]
            info = shown["model_info"]
            architecture = info["general.architecture"]
            if model["model"] != "echo":
                assert info[f"{architecture}.context_length"] == 2048
            assert info["general.basename"] == model["model"]
        body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
        answer = client.post("/v1/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"] == "hi"
        shown = client.post("/api/show", json={"model": "echo"}).json()
        assert shown["model_info"]["echo.context_length"] > 0  # told by its worker


def test_who_looks_for_it_finds_it(server: Swapper) -> None:
    assert "Ollama is running" in server.get("/").text


def test_a_body_without_a_type_is_read(server: Swapper) -> None:
    """As `curl -d` sends it."""
    body = b'{"model": "echo", "prompt": "hi", "stream": false}'
    headers = {"content-type": "application/x-www-form-urlencoded"}
    found = httpx.post(
        f"{server.url}/api/generate", content=body, headers=headers, timeout=PATIENCE_S
    )
    assert found.json()["response"] == "hi"
