"""A real `swapper serve` for real clients: the demo models, and a foreign server that plays a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swapper.config import DEMO_FOLDER
from tests.clients.scripted import ScriptedServer
from tests.system.conftest import Swapper

KEY = "a-key-for-tests"
CONFIG = """
api_keys: [{{name: tests, key: {key}}}]
models:
  scripted: {{engine: url, url: "http://127.0.0.1:{port}", aliases: [local-claude]}}
  echo: {{engine: echo}}
"""
DEMO = """
  demo-chat:
    engine: llamacpp
    path: {folder}/demo-chat.gguf
    aliases: [{{name: "demo-chat:precise", set: {{temperature: 0}}}}]
"""


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def url(scripted: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it serves."""
    folder = tmp_path_factory.mktemp("swapper")
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(key=KEY, port=scripted.port) + _demo())
    env = {"XDG_STATE_HOME": str(folder / "state"), "XDG_RUNTIME_DIR": ""}
    arguments = ["--config", str(config), "--listen", "127.0.0.1:0"]
    swapper = Swapper(folder / "swapper.log", arguments, env)
    try:
        yield swapper.wait_until_up().url
    finally:
        if swapper.dead() is None:
            swapper.stop()


@pytest.fixture
def demo() -> str:
    """The demo model's name; skips where it cannot be served."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    return "demo-chat"


def _demo() -> str:
    return DEMO.format(folder=DEMO_FOLDER) if _has_demo(DEMO_FOLDER) else ""


def _has_demo(folder: Path) -> bool:
    return (folder / "demo-chat.gguf").is_file()
