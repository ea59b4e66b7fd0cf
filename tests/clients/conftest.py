"""A real `swapper serve` for real clients: the demo models, and a foreign server that plays a script."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from swapper.config import DEMO_FOLDER
from tests.clients.scripted import ScriptedServer
from tests.system.conftest import serving

KEY = "a-key-for-tests"
CONFIG = """
api_keys: [{{name: tests, key: {key}}}]
models:
  scripted: {{engine: url, url: "http://127.0.0.1:{port}", aliases: [local-claude]}}
  echo: {{engine: echo}}
"""
DEMO = """
  {name}:
    engine: {engine}
    path: {folder}/{file}
    aliases: [{{name: "{name}:precise", set: {{temperature: 0}}}}]
"""


class Demo(NamedTuple):
    """The demo model as one engine serves it, and what that needs."""

    name: str
    engine: str
    file: str
    package: str


DEMOS = (
    Demo("demo-chat", "llamacpp", "demo-chat.gguf", "llama_cpp"),
    Demo("demo-paged", "paged", "demo-chat", "torch"),
)


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def url(scripted: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it serves."""
    config = CONFIG.format(key=KEY, port=scripted.port) + demo_models()
    with serving(tmp_path_factory.mktemp("swapper"), config) as swapper:
        yield swapper.url


@pytest.fixture
def connections_end_here() -> Iterator[None]:
    """For packages that leave their connections to the collector: not in the middle of another test."""
    yield
    gc.collect()


@pytest.fixture(params=DEMOS, ids=lambda demo: demo.engine)
def demo(request: pytest.FixtureRequest) -> str:
    """The demo model's name, by one engine after the other; skips where it cannot be served."""
    demo: Demo = request.param
    if not _can_serve(demo):
        pytest.skip(f"{demo.package} is not installed, which the engine {demo.engine} needs")
    return demo.name


def demo_models() -> str:
    """The configuration of the demo models that can be served here."""
    served = filter(_can_serve, DEMOS)
    return "".join(DEMO.format(folder=DEMO_FOLDER, **demo._asdict()) for demo in served)


def _can_serve(demo: Demo) -> bool:
    is_there = importlib.util.find_spec(demo.package) is not None
    return is_there and (DEMO_FOLDER / demo.file).exists()
