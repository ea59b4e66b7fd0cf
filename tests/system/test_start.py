"""How swapper starts: what it leaves out until it serves, and who may come meanwhile."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

import pytest

from swapper.config.listen import Listen
from swapper.listening import opened
from tests.system.conftest import PATIENCE_S, Swapper, eventually

Serve = Callable[..., Swapper]
CONFIG = "models:\n  parrot: {engine: echo}\n"
NOT_NEEDED = {
    *("jinja2", "tokenizers", "numpy", "torch", "llama_cpp", "backends"),  # for workers
    *("huggingface_hub", "httpx", "requests"),  # for `swapper pull`
    *("opentelemetry",),  # where tracing is asked for
    *("swapper.hub", "swapper.importing.llama_swap", "swapper.measure", "swapper.front.openapi"),
}


def test_what_serving_does_not_need_is_not_imported(serve: Serve) -> None:
    started = serve(CONFIG, PYTHONPROFILEIMPORTTIME="1")
    before, listening, _ = started.output().partition('"event":"listening"')
    assert listening
    imported = set(re.findall(r"^import time:[^|]+\|[^|]+\|\s+(\S+)$", before, re.MULTILINE))
    assert {"swapper.app", "aiohttp.web", "structlog.dev"} <= imported
    parents = {".".join(name.split(".")[:2]) for name in imported}
    assert (imported | parents) & NOT_NEEDED == set()


def test_who_comes_while_it_starts_is_answered(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = serve(CONFIG, "--listen", f"127.0.0.1:{port}", wait=False)

    def connected() -> socket.socket | None:
        assert started.dead() is None, started.output()
        try:
            return socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        except ConnectionRefusedError:
            return None

    client = eventually(connected)
    assert isinstance(client, socket.socket)
    with client:
        client.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert client.recv(64).startswith(b"HTTP/1.1 200 ")


def hosts() -> list[str]:
    """Some machines have no IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "::1"]


@pytest.mark.parametrize("host", hosts())
def test_an_address_listens_before_there_is_a_server(host: str) -> None:
    listener = opened(Listen(host, 0))
    assert isinstance(listener, socket.socket)
    with listener, socket.create_connection(listener.getsockname()[:2], PATIENCE_S):
        pass


@pytest.mark.parametrize("listen", [Listen("localhost", 1), Listen(socket_path="/nowhere/s")])
def test_names_and_paths_are_left_to_the_server(listen: Listen) -> None:
    assert opened(listen) is listen
