"""The web page in a real browser, headless Chromium, over a real `swapper serve`.

Needs the package `playwright` and a Chromium of the system's; nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from swapper.config import DEMO_FOLDER
from tests.clients.scripted import ScriptedServer
from tests.system.conftest import Swapper

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEY = "a-key-for-tests"
PATIENCE_MS = 30_000
CONFIG = """
max_loaded: 1
memory: {{host: 4GiB}}
models:
  quick: {{engine: echo, options: {{tokens_per_s: 200}}}}
  slow: {{engine: echo, ttl: 2m, options: {{load_s: 1.5, tokens_per_s: 20}}}}
  org/named: {{engine: echo, aliases: [gpt-4o-mini]}}
  broken: {{engine: echo, options: {{fail_load: bad_file}}}}
  scripted: {{engine: url, url: "http://127.0.0.1:{port}"}}
  demo-chat: {{engine: llamacpp, path: {folder}/demo-chat.gguf}}
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium here: apt install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of six models with room for one."""
    scripted = ScriptedServer()
    config = CONFIG.format(port=scripted.port, folder=DEMO_FOLDER)
    with _serving(tmp_path_factory.mktemp("swapper"), config) as swapper:
        yield swapper.url
    scripted.close()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Swapper]:
    """A server of its own for the test, that asks for a key."""
    config = f"api_keys: [{{name: tests, key: {KEY}}}]\nmodels: {{quick: {{engine: echo}}}}\n"
    with _serving(tmp_path, config) as swapper:
        yield swapper


class _serving:
    def __init__(self, folder: Path, config: str) -> None:
        (folder / "config.yaml").write_text(config)
        arguments = ["--config", str(folder / "config.yaml"), "--listen", "127.0.0.1:0"]
        env = {"XDG_STATE_HOME": str(folder / "state"), "XDG_RUNTIME_DIR": ""}
        self.swapper = Swapper(folder / "swapper.log", arguments, env)

    def __enter__(self) -> Swapper:
        return self.swapper.wait_until_up()

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            if self.swapper.dead() is None:
                self.swapper.stop()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages. In the end none of them may have complained, or asked another host for anything."""
    contexts, complaints, hosts = [], [], set()

    def visit(
        url: str, *, width: int = 1280, height: int = 900, is_live: bool = True, **options: Any
    ) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.allowed = []
        page.goto(f"{url}/")
        hosts.discard(urlsplit(url).netloc)
        page.ours = urlsplit(url).netloc
        if is_live:
            page.get_by_text("Live", exact=True).wait_for()
        allowed.append(page)
        return page

    allowed: list[Any] = []
    yield visit
    others = hosts - {page.ours for page in allowed}
    expected = [words for page in allowed for words in page.allowed]
    for context in contexts:
        context.close()
    assert not others
    assert [c for c in complaints if not any(words in c for words in expected)] == []
