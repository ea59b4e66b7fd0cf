from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

Swapper = Callable[..., Result]

WORKER = {
    "model": "coder",
    "state": "ready",
    "engine": "llamacpp",
    "worker": "coder#1",
    "pid": 7,
    "in_flight": 2,
    "waiting": 1,
    "memory": {
        "estimated": {"host": 700 << 20, "cuda:0": 2 << 30},
        "measured": {"host": 608 << 20},
    },
    "idle_s": 65.4,
    "expires_in_s": 534.2,
    "progress": 1.0,
    "ttl": 600,
}


def test_ps(counterpart: Any, swapper: Swapper) -> None:
    starting = {
        **WORKER,
        "model": "chat",
        "state": "starting",
        "progress": 0.42,
        "pin": True,
        "idle_s": None,
        "ttl": 0,
    }
    counterpart.say("/running", {"running": [WORKER, starting]})
    result = swapper("ps", url=counterpart.url)
    assert result.exit_code == 0
    header, coder, chat = result.output.splitlines()
    assert header.split() == [
        "model",
        "engine",
        "state",
        "in",
        "flight",
        "waiting",
        "memory",
        "(~estimate)",
        "idle",
        "expires",
    ]
    assert coder.split("   ")[0] == "coder"
    for text in ("llamacpp", "ready", "host 608 MiB (~700 MiB), cuda:0 ~2 GiB", "1m5s", "8m54s"):
        assert text in coder
    assert "starting 42%, pinned" in chat
    assert "pinned" not in coder
    assert chat.rstrip().endswith("never")


def test_ps_of_nothing(counterpart: Any, swapper: Swapper) -> None:
    counterpart.say("/running", {"running": []})
    assert swapper("ps", url=counterpart.url).output == "no model is loaded\n"


def test_ps_for_scripts(counterpart: Any, swapper: Swapper) -> None:
    counterpart.say("/running", {"running": [WORKER]})
    result = swapper("ps", "--json", url=counterpart.url)
    assert json.loads(result.output) == {"running": [WORKER]}


def test_a_model_that_waits_without_a_worker(counterpart: Any, swapper: Swapper) -> None:
    nothing = {"memory": {"estimated": {}, "measured": {}}, "idle_s": None, "expires_in_s": None}
    counterpart.say("/running", {"running": [{**WORKER, **nothing, "state": "waiting"}]})
    assert "waiting" in swapper("ps", url=counterpart.url).output


def test_list(counterpart: Any, swapper: Swapper) -> None:
    models = [
        {
            "id": "coder",
            "aliases": ["a", "b"],
            "engine": "llamacpp",
            "state": "ready",
            "context_length": 32768,
        },
        {"id": "plain"},
    ]
    counterpart.say("/v1/models", {"object": "list", "data": models})
    header, coder, plain = swapper("list", url=counterpart.url).output.splitlines()
    assert header.split() == ["model", "aliases", "engine", "state", "context"]
    assert [cell.strip() for cell in coder.split("   ") if cell.strip()] == [
        "coder", "a, b", "llamacpp", "ready", "32768",
    ]  # fmt: skip
    assert plain.split() == ["plain", "-"]
    assert json.loads(swapper("list", "--json", url=counterpart.url).output)["data"] == models


def test_stop(counterpart: Any, swapper: Swapper) -> None:
    counterpart.say("/swapper/v1/models/org%2Fm/unload", {"model": "org/m", "state": "stopped"})
    result = swapper("stop", "org/m", url=counterpart.url, key="secret")
    assert (result.exit_code, result.output) == (0, "org/m is unloaded\n")
    ((method, _, _, headers),) = counterpart.requests
    assert method == "POST"
    assert headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("command", "said"),
    [("sleep", "sleeps"), ("pin", "is pinned"), ("unpin", "is not pinned")],
)
def test_sleep_and_pin(counterpart: Any, swapper: Swapper, command: str, said: str) -> None:
    counterpart.say(f"/swapper/v1/models/org%2Fm/{command}", {"model": "org/m"})
    result = swapper(command, "org/m", url=counterpart.url)
    assert (result.exit_code, result.output) == (0, f"org/m {said}\n")
    assert [method for method, *_ in counterpart.requests] == ["POST"]


def test_an_error_is_the_servers_own_sentence(counterpart: Any, swapper: Swapper) -> None:
    message = "model 'x' is not configured; did you mean 'y'?"
    counterpart.say_error("/swapper/v1/models/x/unload", message, 404)
    result = swapper("stop", "x", url=counterpart.url)
    assert (result.exit_code, result.stderr) == (1, f"Error: {message}\n")


def test_logs(counterpart: Any, swapper: Swapper) -> None:
    counterpart.say("/logs?", "[a] one\n[b] two\n")
    assert swapper("logs", url=counterpart.url).output == "[a] one\n[b] two\n"
    counterpart.say("/logs?model=org%2Fm&follow=1", "one\n")
    assert swapper("logs", "-f", "org/m", url=counterpart.url).output == "one\n"
    counterpart.say("/logs?&follow=1", "two\n")
    assert swapper("logs", "-f", url=counterpart.url).output == "two\n"


def test_a_unix_socket_will_do(unix_counterpart: Any, swapper: Swapper) -> None:
    unix_counterpart.say("/running", {"running": []})
    assert swapper("ps", url=unix_counterpart.url).output == "no model is loaded\n"


def test_an_address_as_openai_clients_have_it(counterpart: Any, swapper: Swapper) -> None:
    counterpart.say("/running", {"running": []})
    for url in (
        f"{counterpart.url}/v1/",
        counterpart.url + "/",
        counterpart.url.removeprefix("http://"),
    ):
        assert swapper("ps", url=url).exit_code == 0


@pytest.mark.parametrize(
    "command", [("ps",), ("list",), ("stop", "m"), ("logs",), ("run", "m", "hi")]
)
def test_nobody_at_home(swapper: Swapper, command: tuple[str, ...]) -> None:
    result = swapper(*command)
    assert result.exit_code == 3
    assert result.stderr == (
        "Error: swapper is not running at http://127.0.0.1:9; start it with `swapper serve`\n"
    )


def test_a_socket_that_is_not_there(swapper: Swapper) -> None:
    result = swapper("ps", url="unix:/nowhere/s")
    assert result.exit_code == 3
    assert "swapper is not running at unix:/nowhere/s" in result.stderr


def test_no_key(counterpart: Any, swapper: Swapper) -> None:
    counterpart.say_error("/running", "no", 401)
    result = swapper("ps", url=counterpart.url)
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: the server asks for an API key; set SWAPPER_API_KEY\n",
    )


@pytest.mark.parametrize(("status", "body", "text"), [
    (502, "<html>bad gateway</html>", "the server answered 502: <html>bad gateway</html>"),
    (500, "", "the server answered 500: nothing more"),
    (200, "<html>hello</html>", "does not answer as swapper does"),
])  # fmt: skip
def test_somebody_else_at_home(
    counterpart: Any, swapper: Swapper, status: int, body: str, text: str
) -> None:
    counterpart.say("/running", body, status)
    result = swapper("ps", url=counterpart.url)
    assert result.exit_code == 1
    assert text in result.stderr


@pytest.mark.parametrize("url", ["http://", "ftp://x", "http://x:y"])
def test_an_address_that_is_none(swapper: Swapper, url: str) -> None:
    result = swapper("ps", url=url)
    assert result.exit_code == 2
    assert "SWAPPER_URL is" in result.stderr


def test_help_names_every_command_in_order(swapper: Swapper) -> None:
    output = swapper("--help").output
    places = [
        output.index(f"\n  {name} ")
        for name in ("serve", "run", "ps", "list", "stop", "logs", "check")
    ]
    assert places == sorted(places)


def test_help_loads_next_to_nothing() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from swapper.cli import main;"
        "CliRunner().invoke(main, ['--help']); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {
        "aiohttp",
        "pydantic",
        "yaml",
        "rich",
        "structlog",
        "asyncio",
        "swapper.config",
        "swapper.app",
    }
    assert heavy & set(loaded.stdout.split()) == set()
