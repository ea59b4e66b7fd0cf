"""HTTP to a running swapper, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click

DEFAULT_URL = "http://127.0.0.1:8080"
CONNECT_TIMEOUT_S = 5.0  # answers may take as long as a model loads


class NotRunning(click.ClickException):
    """No server answers."""

    exit_code = 3


class Answered(click.ClickException):
    """The server answered with an error; its text is the server's own."""


class Client:
    """One server, by its address. Every call is a connection of its own."""

    def __init__(self, url: str, api_key: str = "") -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key
        self._parts = _split(url)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Client:
        """The server that SWAPPER_URL names."""
        url = environ.get("SWAPPER_URL") or DEFAULT_URL
        return cls(url, environ.get("SWAPPER_API_KEY", ""))

    def get(self, path: str) -> Any:
        """The JSON at `path`; raises NotRunning or Answered."""
        return self._json("GET", path, None)

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        """What comes back for `body`; raises NotRunning or Answered."""
        return self._json("POST", path, body)

    def lines(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> Generator[str]:
        """The lines of an answer as they come. Closing the iterator ends the connection."""
        connection, response = self._open(method, path, body)
        try:
            while line := response.readline():
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as error:
            raise Answered(f"the connection to {self.url} broke off: {_why(error)}") from None
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: Mapping[str, object] | None) -> Any:
        text = "\n".join(self.lines(method, path, body))
        try:
            return json.loads(text)
        except ValueError:
            raise Answered(f"{self.url} does not answer as swapper does") from None

    def _open(
        self, method: str, path: str, body: Mapping[str, object] | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {"accept": "*/*"}
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["content-type"] = "application/json"
        connection = self._connection()
        try:
            connection.connect()
            connection.sock.settimeout(None)
            connection.request(method, self._parts.path + path, data, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._not_running(error) from None
        if response.status >= 400:
            text = response.read().decode("utf-8", "replace")
            connection.close()
            raise Answered(_message(response.status, text))
        return connection, response

    def _connection(self) -> http.client.HTTPConnection:
        parts = self._parts
        if parts.scheme == "unix":
            return _UnixConnection(parts.netloc)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        return kind(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S)

    def _not_running(self, error: Exception) -> NotRunning:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            hint = "start it with `swapper serve`"
        else:
            hint = f"{_why(error)}; SWAPPER_URL says where it is"
        return NotRunning(f"swapper is not running at {self.url}; {hint}")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, socket_path: str) -> None:
        super().__init__("localhost", timeout=CONNECT_TIMEOUT_S)
        self._socket_path = socket_path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


def _split(url: str) -> SplitResult:
    """The parts of a server's address; of `unix:/path`, the path as netloc."""
    if url.startswith("unix:"):
        return SplitResult("unix", url.removeprefix("unix:"), "", "", "")
    if "://" not in url:
        url = f"http://{url}"
    parts = urlsplit(url)
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is no number
        valid = False
    if not valid:
        raise click.UsageError(f"SWAPPER_URL is '{url}'; write it as {DEFAULT_URL}")
    path = parts.path.rstrip("/").removesuffix("/v1")  # the base of OpenAI clients will do
    return parts._replace(path=path)


def _message(status: int, text: str) -> str:
    """The sentence in an error's envelope."""
    if status == 401:
        return "the server asks for an API key; set SWAPPER_API_KEY"
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}: {text.strip()[:200] or 'nothing more'}"


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
