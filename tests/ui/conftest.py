"""The web page in a real browser, headless Chromium, over a real `swapper serve`.

Needs the package `playwright` and a Chromium of the system's; nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from swapper.config import DEMO_FOLDER
from tests.clients.scripted import ScriptedServer
from tests.system.conftest import Swapper, serving

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEY = "a-key-for-tests"
PATIENCE_MS = 30_000
CONFIG = """
max_loaded: 1
memory: {{host: 4GiB}}
capture: {{requests: 20}}
models:
  quick: {{engine: echo, options: {{tokens_per_s: 200}}}}
  slow: {{engine: echo, ttl: 2m, options: {{load_s: 1.5, tokens_per_s: 20}}}}
  sleeper: {{engine: echo, options: {{can_sleep: true, load_s: 0.3}}}}
  org/named: {{engine: echo, aliases: [gpt-4o-mini]}}
  broken: {{engine: echo, options: {{fail_load: bad_file}}}}
  scripted: {{engine: url, url: "http://127.0.0.1:{port}"}}
  demo-chat: {{engine: llamacpp, path: {folder}/demo-chat.gguf}}
"""


@pytest.fixture(
    scope="module"
)  # while it is there its event loop runs, and asynchronous tests cannot
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium here: apt install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of seven models with room for one."""
    scripted = ScriptedServer()
    config = CONFIG.format(port=scripted.port, folder=DEMO_FOLDER)
    with serving(tmp_path_factory.mktemp("swapper"), config) as swapper:
        yield swapper.url
    scripted.close()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Swapper]:
    """A server of its own for the test, that asks for a key."""
    config = f"""
api_keys: [{{name: tests, key: {KEY}}}]
key_in_path: true
capture: {{}}
models: {{quick: {{engine: echo}}}}
"""
    with serving(tmp_path, config) as swapper:
        yield swapper


@pytest.fixture
def unkept(tmp_path: Path) -> Iterator[Swapper]:
    """A server of its own for the test, that keeps nothing of what is said."""
    with serving(tmp_path, "models: {quick: {engine: echo}}") as swapper:
        yield swapper


class Visits:
    """Opens pages, each in a browser profile of its own, and notes what goes wrong on them."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.contexts: list[Any] = []
        self.complaints: list[str] = []
        self.expected: list[str] = []
        self.hosts: set[str] = set()  # that were asked for anything
        self.ours: set[str] = set()

    def __call__(
        self, url: str, *, width: int = 1280, height: int = 900, is_live: bool = True,
        expected: tuple[str, ...] = (), **options: Any,
    ) -> Any:  # fmt: skip
        """The page at `url`, with its first state on it if `is_live`.

        `expected`: words of complaints that belong to the test.
        """
        context = self._browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MS)
        self.contexts.append(context)
        self.expected += expected
        self.ours.add(urlsplit(url).netloc)
        page = context.new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.goto(f"{url}/")
        if is_live:
            page.get_by_text("Live", exact=True).wait_for()
        return page

    def _note(self, said: Any) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)


@pytest.fixture
def visit(browser: Any) -> Iterator[Visits]:
    """Opens pages. In the end none of them may have complained, or asked another host for anything."""
    visits = Visits(browser)
    yield visits
    for context in visits.contexts:
        context.close()
    assert visits.hosts == visits.ours
    unexpected = [c for c in visits.complaints if not any(e in c for e in visits.expected)]
    assert not unexpected
