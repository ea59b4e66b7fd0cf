"""What other tools left, served for real."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from swapper.cli import main
from swapper.config import DEMO_FOLDER
from tests.system.conftest import Swapper

COMMAND_SERVER = Path(__file__).parents[1] / "system/command_server.py"
THEIRS = f"""
healthCheckTimeout: 30
macros:
  server: "{sys.executable} {COMMAND_SERVER}"
models:
  one:
    cmd: |
      # what starts it
      ${{server}}
      ${{PORT}}
    aliases: [uno]
    checkEndpoint: /health
  two:
    cmd: ${{server}} ${{PORT}}
    proxy: http://127.0.0.1:${{PORT}}
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path], Swapper]]:
    started: list[Swapper] = []

    def start(config: Path) -> Swapper:
        env = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_RUNTIME_DIR": ""}
        arguments = ["--config", str(config), "--listen", "127.0.0.1:0"]
        started.append(Swapper(tmp_path / "log", arguments, env))
        return started[-1].wait_until_up()

    yield start
    for swapper in started:
        swapper.stop()


def test_a_llama_swap_configuration_as_it_is(
    serve: Callable[[Path], Swapper], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(THEIRS)
    swapper = serve(path)
    for name in ("one", "two", "uno"):
        answer = swapper.chat(name)
        assert answer.status_code == 200, answer.text
        assert swapper.workers().keys() == {"two" if name == "two" else "one"}  # one at a time


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)
def test_an_ollama_store_imported(
    serve: Callable[[Path], Swapper], ollama: Any, tmp_path: Path
) -> None:
    weights = DEMO_FOLDER / "demo-chat.gguf"
    ollama.add("registry.ollama.ai/library/demo/latest", model=b"", params={"num_predict": 5})
    empty = ollama.folder / f"blobs/sha256-{hashlib.sha256(b'').hexdigest()}"
    shutil.copy(weights, empty)
    path = tmp_path / "config.yaml"
    result = CliRunner().invoke(main, ["import", str(ollama.folder), "-o", str(path)])
    assert result.exit_code == 0, result.output
    swapper = serve(path)
    for name in ("demo", "demo:latest"):
        answer = swapper.chat(name, "What is swapper?").json()
        assert answer["usage"]["completion_tokens"] == 5
