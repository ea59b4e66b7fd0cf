from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result

from swapper.config import Config, load
from swapper.errors import ConfigError

Swapper = Callable[..., Result]
GOOD = """
listen: 127.0.0.1:7777
api_keys: [x]
models:
  parrot: {engine: echo, aliases: [bird], memory: {host: 100MiB}, ttl: 1h, pin: true}
  far: {engine: url, url: "http://far"}
  own: {engine: command, cmd: sh}
"""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Stands in for the server; every configuration it was to serve."""
    app = ModuleType("swapper.app")
    configs: list[Config] = []
    app.Start = lambda config, *_: config  # type: ignore[attr-defined]
    app.serve = lambda start: configs.append(start) or 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swapper.app", app)
    monkeypatch.setattr("swapper.listening.opened", lambda listen: listen)
    return configs


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return str(path)


@pytest.mark.parametrize("option", [(), ("--config",), ("-c",)])
def test_serve(swapper: Swapper, served: list[Config], good: str, option: tuple[str, ...]) -> None:
    result = swapper("serve", *option, good)
    assert result.exit_code == 5
    assert list(served[0].models) == ["parrot", "far", "own"]
    assert str(served[0].listen[0]) == "127.0.0.1:7777"


def test_serve_elsewhere(swapper: Swapper, served: list[Config], good: str) -> None:
    swapper("serve", "-c", good, "--listen", "0.0.0.0:1")
    assert [str(address) for address in served[0].listen] == ["0.0.0.0:1"]


def test_a_change_while_the_file_is_read_is_not_missed(
    swapper: Swapper, served: list[Config], good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = []
    app = sys.modules["swapper.app"]
    monkeypatch.setattr(app, "Start", lambda config, _, file, *__: watched.append(file))

    def read_and_change(path: Path) -> Config:
        config = load(path)
        path.rename(path.with_suffix(".old"))
        path.write_text(GOOD)
        return config

    monkeypatch.setattr("swapper.config.load", read_and_change)
    assert swapper("serve", good, "--watch").exit_code == 5
    (file,) = watched
    assert file.has_changed()
    assert not file.has_changed()
    Path(good).unlink()
    assert not file.has_changed()


def test_serve_the_demo(
    swapper: Swapper, served: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = Config("demo", (), {})
    monkeypatch.setattr("swapper.config.demo_config", lambda: demo)
    assert swapper("serve").exit_code == 5
    assert served == [demo]
    result = swapper("serve", "--listen", "0.0.0.0:1")
    assert result.exit_code == 78
    assert "no api_keys are set" in result.stderr


def test_serve_says_why_not(
    swapper: Swapper,
    served: list[Config],
    tmp_path: Path,
    good: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_demo() -> Config:
        raise ConfigError("no demo here")

    monkeypatch.setattr("swapper.config.demo_config", no_demo)
    assert (swapper("serve").exit_code, swapper("serve").stderr) == (78, "no demo here\n")
    assert "nix.yaml: cannot be read" in swapper("serve", "nix.yaml").stderr
    assert "there is no model in this folder" in swapper("serve", str(tmp_path)).stderr
    assert swapper("serve", good, "-c", good).exit_code == 2
    result = swapper("serve", good, "--listen", "nowhere")
    assert (result.exit_code, "'nowhere' is not an address" in result.stderr) == (2, True)
    assert served == []


def test_check(swapper: Swapper, good: str) -> None:
    result = swapper("check", good)
    assert result.exit_code == 0, result.stderr
    first, second, _, parrot, far, own = result.stdout.splitlines()
    assert first == f"{good}: listens on 127.0.0.1:7777, 1 API keys"
    assert second.startswith("memory for models: host ")
    for text in ("parrot", "echo", "host 100 MiB", "1h", "bird", "pinned"):
        assert text in parrot
    assert "never" in far
    assert "unknown until measured" in own


def test_check_tells_warnings_and_what_cannot_work(swapper: Swapper, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "models:\n  a: {engine: llamacpp, path: nix.gguf}\n"
        "  b: {engine: echo, memory: {host: 900TiB}}\n"
    )
    result = swapper("check", str(path))
    assert result.exit_code == 1
    assert f"error: {path}:2: models.a.path: nix.gguf: there is no such file" in result.stderr
    assert f"warning: {path}:3: models.b: needs 900.0 TiB of host" in result.stderr


def test_check_names_all_errors(swapper: Swapper, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("lisen: 1\nmodels:\n  a: {engine: ecko}\n")
    result = swapper("check", str(path))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{path}:1: lisen: is not known; did you mean 'listen'?",
        f"{path}:3: models.a: engine 'ecko' is not known; did you mean 'echo'?",
    ]


def test_check_needs_something_to_check(swapper: Swapper) -> None:
    assert swapper("check").exit_code == 2


def test_the_schema_for_editors(swapper: Swapper) -> None:
    assert "models" in json.loads(swapper("check", "--schema").stdout)["properties"]
