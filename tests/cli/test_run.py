from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from swapper.cli import chat
from swapper.cli.chat import Chat, converse, doing, texts
from swapper.cli.client import Answered, Client

Swapper = Callable[..., Result]
PATH = "/v1/chat/completions"


def stream(*pieces: str, end: str = "data: [DONE]\n\n") -> str:
    """An answer as SSE, with all that may stand between the pieces."""
    chunks = [{"choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    chunks += [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    chunks += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": {}}]
    return ": keep-alive\n\n" + "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end


def test_a_question_and_its_answer(counterpart: Any, swapper: Swapper) -> None:
    counterpart.say(PATH, stream("Hello", ", wörld"))
    result = swapper("run", "m", "what", "is", "this?", url=counterpart.url, key="k")
    assert (result.exit_code, result.stdout) == (0, "Hello, wörld\n")
    ((_, _, body, headers),) = counterpart.requests
    assert body == {
        "model": "m",
        "stream": True,
        "messages": [{"role": "user", "content": "what is this?"}],
    }
    assert headers["authorization"] == "Bearer k"


def test_options(counterpart: Any, swapper: Swapper) -> None:
    counterpart.say(PATH, stream("x"))
    swapper("run", "m", "hi", "-s", "be brief", "-t", "0", "-n", "9", url=counterpart.url)
    body = counterpart.requests[0][2]
    assert (body["temperature"], body["max_tokens"]) == (0, 9)
    assert body["messages"][0] == {"role": "system", "content": "be brief"}


@pytest.mark.parametrize(
    ("args", "stdin", "asked"),
    [((), "text\n", "text"), (("sum up:",), "a\nb\n", "sum up:\n\na\nb"), (("hi",), "", "hi")],
)
def test_what_is_piped_in_is_added(
    counterpart: Any, swapper: Swapper, args: tuple[str, ...], stdin: str, asked: str
) -> None:
    counterpart.say(PATH, stream("x"))
    swapper("run", "m", *args, url=counterpart.url, stdin=stdin)
    assert counterpart.requests[0][2]["messages"][-1]["content"] == asked


def test_nothing_to_ask(swapper: Swapper) -> None:
    result = swapper("run", "m")
    assert result.exit_code == 2
    assert "nothing to ask" in result.stderr


def test_a_refusal(counterpart: Any, swapper: Swapper) -> None:
    counterpart.say_error(PATH, "model 'm' cannot be loaded", 503)
    result = swapper("run", "m", "hi", url=counterpart.url)
    assert (result.exit_code, result.stderr) == (1, "Error: model 'm' cannot be loaded\n")


def test_an_error_within_the_stream(counterpart: Any, swapper: Swapper) -> None:
    error = 'data: {"error": {"message": "the worker died"}}\n\n'
    counterpart.say(PATH, stream("half", end=error))
    result = swapper("run", "m", "hi", url=counterpart.url)
    assert (result.exit_code, result.stdout, result.stderr) == (
        1,
        "half\n",
        "Error: the worker died\n",
    )


def test_an_answer_that_breaks_off_is_not_taken_for_whole(
    counterpart: Any, swapper: Swapper
) -> None:
    counterpart.say(PATH, stream("half", end=""))
    result = swapper("run", "m", "hi", url=counterpart.url)
    assert result.exit_code == 1
    assert "broke off before its end" in result.stderr


def test_reading_a_stream() -> None:
    assert list(texts(iter(stream("a", "b").splitlines()))) == ["a", "b"]
    with pytest.raises(Answered, match="broke off"):
        list(texts(iter([])))


class Typist:
    """Types lines at the prompt; an exception among them is raised there."""

    def __init__(self, *lines: str | BaseException) -> None:
        self._lines = iter([*lines, EOFError()])

    def __call__(self, prompt: str) -> str:
        line = next(self._lines)
        if isinstance(line, BaseException):
            raise line
        return line


@pytest.fixture
def talk(
    counterpart: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> Iterator[Callable[..., list[Any]]]:
    """Has a conversation; returns what was sent along with each question."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def converse_(*lines: str | BaseException) -> list[Any]:
        monkeypatch.setattr("builtins.input", Typist(*lines))
        converse(Chat(Client(counterpart.url), "m", "sys", {}))
        return [
            [message["content"] for message in body["messages"]]
            for _, path, body, _ in counterpart.requests
            if path == PATH
        ]

    return converse_


def test_a_conversation_remembers(counterpart: Any, talk: Callable[..., list[Any]]) -> None:
    counterpart.say(PATH, stream("yes"))
    asked = talk("one", "", KeyboardInterrupt(), "two", "/clear", "three", "/bye", "never said")
    assert asked == [["sys", "one"], ["sys", "one", "yes", "two"], ["sys", "three"]]


def test_a_failed_question_is_forgotten(
    counterpart: Any, talk: Callable[..., list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    counterpart.say_error(PATH, "too busy", 503)
    assert talk("one", "two") == [["sys", "one"], ["sys", "two"]]
    assert capsys.readouterr().err.count("Error: too busy") == 2


def test_ctrl_c_ends_the_answer_and_keeps_what_was_said(
    counterpart: Any, talk: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counterpart.say(PATH, stream("a", "b"))
    echo, seen = chat.click.echo, []

    def interrupted(text: str = "", **options: Any) -> None:
        seen.append(text)
        echo(text, **options)
        if seen.count("a") == 1 and text == "a":
            raise KeyboardInterrupt

    monkeypatch.setattr(chat.click, "echo", interrupted)
    assert talk("one", "two") == [["sys", "one"], ["sys", "one", "a", "two"]]


@pytest.mark.parametrize(
    ("workers", "text"),
    [
        ([], "m waits"),
        ([("m", "starting", 0.42)], "loading m 42%"),
        ([("m", "ready", 1)], "m thinks"),
        ([("m", "waiting", 0)], "m waits for room"),
        ([("other", "draining", 1), ("m", "waiting", 0)], "m waits for room"),
        ([("other", "ready", 1)], "m waits"),
        ([("real-name", "starting", None)], "loading real-name 0%"),
    ],
)
def test_what_a_request_waits_for(workers: list[tuple[str, str, float]], text: str) -> None:
    shown = [
        {"model": model, "state": state, "progress": progress} for model, state, progress in workers
    ]
    assert doing("m", shown) == text


def test_ctrl_c_without_a_conversation_ends_it_all(
    counterpart: Any, swapper: Swapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Chat, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Chat, "say", interrupted)
    result = swapper("run", "m", "hi", url=counterpart.url)
    assert (result.exit_code, result.stderr) == (130, "\n")
