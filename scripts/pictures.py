"""Makes the pictures of the web page in docs/images: a real swapper, real requests, a real browser.

    .venv/bin/python scripts/pictures.py [FOLDER]

Needs the package `playwright` and a Chromium of the system's (CHROMIUM names another one). The models that are not
demo models are `echo` workers with load times and memory of their own.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from swapper.config import DEMO_FOLDER

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
UP_S = 30.0
CONFIG = """
max_loaded: 3
memory: {{host: 2GiB}}
capture: {{requests: 50, memory: 8MiB}}
models:
  demo-chat: {{engine: llamacpp, path: {folder}/demo-chat.gguf, aliases: [gpt-4o-mini]}}
  demo-story: {{engine: llamacpp, path: {folder}/demo-story.gguf}}
  assistant:
    engine: echo
    pin: true
    memory: {{host: 700MiB}}
    options: {{load_s: 1.5, tokens_per_s: 38, first_token_s: 0.2, can_sleep: true, memory_bytes: 640000000}}
  coder:
    engine: echo
    ttl: 30m
    memory: {{host: 620MiB}}
    options: {{load_s: 2, tokens_per_s: 24, first_token_s: 0.3, can_sleep: true, memory_bytes: 540000000}}
  vision:
    engine: echo
    memory: {{host: 900MiB}}
    options: {{load_s: 6, tokens_per_s: 30, memory_bytes: 800000000}}
"""
POEM = (
    "The engines sleep in rows of light, a request comes by and one wakes up to answer; "
    "the others dream of tensors, and give their room away. "
)


def main(folder: Path) -> None:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        desk = open_page(browser, url, 1440, 900, "light")
        phone = open_page(browser, url, 390, 800, "dark")
        an_afternoon(url, desk)
        desk.screenshot(path=folder / "ui.png")
        side_by_side(browser, folder / "ui-phone.png", phone_shots(phone))
        inspect(desk)
        desk.screenshot(path=folder / "ui-inspector.png")
        browser.close()


@contextmanager
def served() -> Iterator[str]:
    """A server of the configuration above, on a free port."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(CONFIG.format(folder=DEMO_FOLDER))
        log = folder / "swapper.log"
        env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "XDG_RUNTIME_DIR": ""}
        arguments = ["--config", str(folder / "config.yaml"), "--listen", "127.0.0.1:0"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "swapper", "serve", *arguments],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env,
            )  # fmt: skip
        try:
            yield address(log)
        finally:
            process.terminate()
            process.wait()


def address(log: Path) -> str:
    """Where it listens, as soon as it says so."""
    for _ in range(int(UP_S / 0.05)):
        if found := re.search(r'"addresses":\s*\["([^"]+)"', log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise SystemExit(f"swapper did not start: {log.read_text()}")


def open_page(browser: Browser, url: str, width: int, height: int, scheme: Any) -> Page:
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    page.goto(f"{url}/ui/")
    page.get_by_text("Live", exact=True).wait_for()
    page.get_by_role("button", name="2 min").click()
    return page


def an_afternoon(url: str, page: Page) -> None:
    """What there is to see: answers, a swap, one asleep, one that loads while another answers."""
    for text in (POEM, POEM * 2):
        said(url, "assistant", text)
        said(url, "coder", "def f(n): return n if n < 2 else f(n - 1) + f(n - 2)")
        said(url, "demo-story", "Once upon a time")
        said(url, "vision", POEM)
        said(url, "assistant", POEM)
        said(url, "demo-story", "The end of it was")
    said(url, "nobody", "hello")
    said(url, "coder", POEM)
    httpx.post(f"{url}/swapper/v1/models/coder/sleep", timeout=60)
    httpx.post(f"{url}/swapper/v1/models/vision/unload", timeout=60)
    ask(page, "demo-chat", "What is swapper?")
    long = threading.Thread(target=said, args=(url, "assistant", POEM * 12))
    long.start()
    ask(page, "demo-chat", "What happens when the memory is full?")
    ask(page, "vision", "What is in this picture?", is_waited_for=False)
    page.get_by_text(re.compile("Loading vision, [4-6]")).wait_for()


def said(url: str, model: str, text: str) -> None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 400,
    }
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def ask(page: Page, model: str, text: str, *, is_waited_for: bool = True) -> None:
    """In the playground."""
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")
    if is_waited_for:
        page.locator(".by-model").last.locator(".cost").get_by_text("in all").wait_for()


def phone_shots(page: Page) -> list[bytes]:
    shots = []
    for place in ("memory", "timeline", "requests"):
        page.evaluate(
            "id => scrollBy(0, document.getElementById(id).getBoundingClientRect().top - "
            "document.querySelector('.top').offsetHeight)",
            place,
        )
        shots.append(page.screenshot())
    return shots


def side_by_side(browser: Browser, file: Path, shots: list[bytes]) -> None:
    """One picture of several, by the browser itself."""
    images = "".join(
        f'<img src="data:image/png;base64,{base64.b64encode(shot).decode()}">' for shot in shots
    )
    page = browser.new_page()
    page.set_content(f'<div style="display:inline-flex;gap:24px">{images}</div>')
    page.locator("div").screenshot(path=file, omit_background=True)
    page.close()


def inspect(page: Page) -> None:
    page.locator(".requests li", has_text="demo-chat").first.get_by_role("button").click()
    page.get_by_role("region", name="Answered").wait_for()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
