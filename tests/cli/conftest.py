"""A counterpart for the command line: a small HTTP server that answers what it is told to."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from swapper.cli import main


class Counterpart:
    """What the server says to each path, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str]] = {}
        self.requests: list[tuple[str, str, Any, dict[str, str]]] = []
        self.url = ""

    def say(self, path: str, body: object, status: int = 200) -> None:
        """Answer `path` (with its query) so; text as it is, all else as JSON."""
        self.answers[path] = (status, body if isinstance(body, str) else json.dumps(body))

    def say_error(self, path: str, message: str, status: int) -> None:
        self.say(path, {"error": {"message": message, "type": "x", "code": None}}, status)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        counterpart = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                headers = {name.lower(): value for name, value in self.headers.items()}
                counterpart.requests.append((self.command, self.path, body, headers))
                status, text = counterpart.answers.get(self.path, (404, "nothing here"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def address_string(self) -> str:
                return "somebody"

            def log_message(self, *args: object) -> None:
                pass

        return Handler


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def counterpart() -> Iterator[Counterpart]:
    """A server on a TCP port."""
    counterpart = Counterpart()
    with ThreadingHTTPServer(("127.0.0.1", 0), counterpart.handler()) as server:
        counterpart.url = f"http://127.0.0.1:{server.server_port}"
        yield from _served(counterpart, server)


@pytest.fixture
def unix_counterpart(tmp_path: Path) -> Iterator[Counterpart]:
    """A server on a Unix socket."""
    counterpart = Counterpart()
    with UnixServer(str(tmp_path / "s"), counterpart.handler()) as server:
        counterpart.url = f"unix:{tmp_path / 's'}"
        yield from _served(counterpart, server)


def _served(counterpart: Counterpart, server: socketserver.BaseServer) -> Iterator[Counterpart]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield counterpart
    server.shutdown()
    thread.join()


@pytest.fixture
def swapper() -> Callable[..., Result]:
    """Runs the command line: `swapper("ps", url=...)`."""

    def call(*args: str, url: str = "http://127.0.0.1:9", key: str = "", stdin: str = "") -> Result:
        environ = {"SWAPPER_URL": url, "SWAPPER_API_KEY": key}
        return CliRunner().invoke(main, list(args), input=stdin, env=environ, prog_name="swapper")

    return call
