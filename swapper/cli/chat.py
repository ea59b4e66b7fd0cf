"""`swapper run`: a chat in the terminal, streamed as it is written."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from swapper.cli.client import Answered, Client

PROMPT = ">>> "
POLL_S = 0.4
HISTORY_LINES = 1000


class Chat:
    """One conversation with one model; what was said is sent along each time."""

    def __init__(
        self, client: Client, model: str, system: str | None, sampling: Mapping[str, object]
    ) -> None:
        self._client = client
        self._model = model
        self._start = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._start)
        self._sampling = {name: value for name, value in sampling.items() if value is not None}

    def clear(self) -> None:
        """Forget what was said."""
        self._messages = list(self._start)

    def say(self, text: str) -> None:
        """Ask, and print the answer as it comes. Ctrl-C ends it; raises KeyboardInterrupt then.

        What was said of the answer until then stays in the conversation; a question that found no
        answer at all does not.
        """
        self._messages.append({"role": "user", "content": text})
        said: list[str] = []
        try:
            with contextlib.closing(self._pieces()) as pieces:
                for piece in pieces:
                    said.append(piece)
                    click.echo(piece, nl=False)
        finally:
            if said:
                self._messages.append({"role": "assistant", "content": "".join(said)})
                click.echo()
            else:
                self._messages.pop()

    def _pieces(self) -> Generator[str]:
        """The answer's text in pieces, with a sign of life until the first."""
        body = {
            "model": self._model,
            "messages": self._messages,
            "stream": True,
            **self._sampling,
        }
        lines = self._client.lines("POST", "/v1/chat/completions", body)
        with contextlib.closing(lines), _Waiting(self._client, self._model) as sign:
            for piece in texts(lines):
                sign.end()
                yield piece


def texts(lines: Iterator[str]) -> Iterator[str]:
    """The text in an SSE stream of chat chunks; raises Answered if it fails or breaks off."""
    for line in lines:
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or not data:
            continue
        if data == "[DONE]":
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise Answered(str(chunk["error"].get("message", chunk["error"])))
        for choice in chunk.get("choices") or ():
            if text := (choice.get("delta") or {}).get("content"):
                yield text
    raise Answered("the answer broke off before its end")


class _Waiting:
    """A spinner that says what a request waits for. Nothing, where nobody sees it."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _Waiting:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._spin, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Take the spinner away; again is a no-op."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _spin(self) -> None:
        if self._ended.wait(0.15):  # most answers begin before anybody would look
            return
        from rich.console import Console

        with Console(stderr=True).status(f"{self._model} ...") as status:
            while not self._ended.is_set():
                if text := self._doing():
                    status.update(text)
                self._ended.wait(POLL_S)

    def _doing(self) -> str:
        try:
            workers = self._client.get("/running")["running"]
        except (click.ClickException, KeyError, TypeError):
            return ""
        return doing(self._model, workers)


def doing(model: str, workers: list[dict[str, Any]]) -> str:
    """What a request to `model` waits for, in a few words."""
    loading = [worker for worker in workers if worker["state"] == "starting"]
    own = [worker for worker in workers if worker["model"] == model]
    for worker in own or (loading if len(loading) == 1 else []):
        if worker["state"] == "starting":
            return f"loading {worker['model']} {worker.get('progress') or 0:.0%}"
        if worker["state"] == "waiting":
            return f"{model} waits for room"
        if worker["state"] == "ready":
            return f"{model} thinks"
    return f"{model} waits"


def piped_text() -> str:
    """What is piped in, if anything is."""
    return "" if sys.stdin.isatty() else sys.stdin.read().strip()


def converse(chat: Chat) -> None:
    """Ask and answer until the end of input."""
    with _history():
        while True:
            try:
                text = input(PROMPT).strip()
            except KeyboardInterrupt:
                click.echo()
                continue
            except EOFError:
                click.echo()
                return
            if text in ("/bye", "/exit", "/quit"):
                return
            _turn(chat, text)


def _turn(chat: Chat, text: str) -> None:
    if text == "/clear":
        chat.clear()
    elif text:
        try:
            chat.say(text)
        except KeyboardInterrupt:
            click.echo()
        except click.ClickException as error:  # the talk goes on: the server may come back
            error.show()


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Line editing with what was asked before, kept over runs where the terminal can."""
    try:
        import readline
    except ImportError:
        yield
        return
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(base) / "swapper" / "questions"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        readline.set_history_length(HISTORY_LINES)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            readline.write_history_file(path)
