"""What a person does on the page, and what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import Any

import httpx
import pytest

from tests.system.conftest import Swapper
from tests.ui.conftest import KEY, PATIENCE_MS, Visits

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import expect

expect.set_options(timeout=PATIENCE_MS)
ANSWERED = re.compile(r" in all$")


def row(page: Any, model: str) -> Any:
    return page.locator(f'.model[data-model="{model}"]')


def button(place: Any, name: str) -> Any:
    return place.get_by_role("button", name=name, exact=True)


def say(page: Any, model: str, text: str) -> Any:
    """Send a message; returns the answer's article, which may still be coming."""
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")
    return page.locator(".by-model").last


def chat(page: Any, model: str, text: str) -> Any:
    answer = say(page, model, text)
    expect(answer.locator(".cost")).to_have_text(ANSWERED)
    return answer


def unload_all(url: str) -> None:
    for worker in httpx.get(f"{url}/running").json()["running"]:
        name = worker["model"].replace("/", "%2F")
        httpx.post(f"{url}/swapper/v1/models/{name}/unload", timeout=30)


@pytest.mark.parametrize("model", ["quick", "org/named"])
def test_loads_and_unloads_by_button(url: str, visit: Visits, model: str) -> None:
    unload_all(url)
    page = visit(url)
    expect(row(page, model)).to_contain_text("not loaded")
    button(row(page, model), "Load").click()
    expect(row(page, model).locator(".state-words")).to_have_text("ready")
    expect(page.locator(".device .legend")).to_contain_text(model)
    expect(page.locator("#summary")).to_contain_text("1 of 7 models loaded")
    expect(page.locator("#announcer")).to_contain_text(f"{model}: ready")
    assert (
        page.evaluate("document.activeElement.textContent") == "Unload"
    )  # the focus stays where it was
    button(row(page, model), "Unload").click()
    expect(row(page, model).locator(".state-words")).to_have_text("not loaded")


def test_keeps_a_model_past_its_ttl(url: str, visit: Visits) -> None:
    page = visit(url)
    chat(page, "slow", "hi")
    expect(row(page, "slow")).to_contain_text(re.compile(r"1 min \d\d s"))
    keep = button(row(page, "slow"), "Keep")
    keep.click()
    expect(keep).to_have_attribute("aria-pressed", "true")
    expect(row(page, "slow")).to_contain_text("kept")
    keep.click()
    expect(keep).to_have_attribute("aria-pressed", "false")


def test_puts_a_model_to_sleep_and_wakes_it(url: str, visit: Visits) -> None:
    unload_all(url)
    page = visit(url)
    state = row(page, "sleeper").locator(".state-words")
    expect(button(row(page, "sleeper"), "Sleep")).not_to_be_visible()
    button(row(page, "sleeper"), "Load").click()
    expect(state).to_have_text("ready")
    button(row(page, "sleeper"), "Sleep").click()
    expect(state).to_have_text("sleeping")
    expect(page.locator(".device .legend")).to_contain_text("sleeping")
    button(row(page, "sleeper"), "Wake").click()
    expect(state).to_have_text("ready")
    button(row(page, "sleeper"), "Sleep").click()
    button(row(page, "sleeper"), "Unload").click()
    expect(state).to_have_text("not loaded")


def test_pins_and_unpins_a_model(url: str, visit: Visits) -> None:
    unload_all(url)
    page = visit(url, expected=("503",))
    chat(page, "quick", "hello")
    pin = button(row(page, "quick"), "Pin")
    pin.click()
    expect(pin).to_have_attribute("aria-pressed", "true")
    expect(row(page, "quick")).to_contain_text("pinned")
    answer = say(page, "slow", "hello")
    expect(answer.get_by_role("alert")).to_contain_text("beside the pinned models")
    pin.click()
    expect(pin).to_have_attribute("aria-pressed", "false")
    chat(page, "slow", "hello")
    expect(page.locator(".decisions li", has_text="unpin")).to_contain_text("quick")


def asked(page: Any, text: str) -> Any:
    """Ask `quick`; returns the request's row, once it is there."""
    newest = page.locator(".requests li").first
    before = newest.get_attribute("data-number") if newest.count() else ""
    chat(page, "quick", text)
    expect(newest).not_to_have_attribute("data-number", before or "")
    return page.locator(f'.requests li[data-number="{newest.get_attribute("data-number")}"]')


def inspected(page: Any, text: str) -> Any:
    """Ask, and open the inspector on that; returns the dialog."""
    asked(page, text).get_by_role("button").click()
    return page.get_by_role("dialog")


def test_inspects_a_request(url: str, visit: Visits) -> None:
    page = visit(url)
    expect(page.locator(".talk")).to_have_attribute(
        "data-empty", re.compile("server keeps the last")
    )
    dialog = inspected(page, 'it\'s a "quoted" wörd')
    expect(dialog).to_contain_text("quick · 200")
    asked = dialog.get_by_role("region", name="Asked")
    expect(asked).to_contain_text('"stream": true')
    expect(asked).to_contain_text('it\'s a \\"quoted\\" wörd')
    answered = dialog.get_by_role("region", name="Answered")
    expect(answered.locator(".joined")).to_have_text('it\'s a "quoted" wörd')
    expect(dialog.locator(".facts")).to_contain_text(re.compile(r"Ended bystop"))
    expect(dialog.locator(".facts")).to_contain_text(re.compile(r"Answer\d+ tokens"))
    button(answered, "As sent").click()
    expect(answered).to_contain_text("data: [DONE]")
    button(dialog, "Close").click()
    expect(page.locator(".requests li").first).to_contain_text("tok · stop")
    button(page, "Forget them").click()
    expect(page.locator(".capture")).to_contain_text("0 requests")
    page.locator(".requests li").first.get_by_role("button").click()
    expect(dialog).to_contain_text("not kept any more")


def test_a_request_is_copied_as_a_command_that_works(url: str, visit: Visits) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    page = visit(url, permissions=["clipboard-read", "clipboard-write"])
    dialog = inspected(page, "it's a $HOME \\ `wörd`")
    button(dialog, "Copy as curl").click()
    expect(button(dialog, "Copied")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30)
    said = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("data: {")]
    deltas = [
        chunk["choices"][0]["delta"].get("content") or "" for chunk in said if chunk["choices"]
    ]
    assert "".join(deltas) == "it's a $HOME \\ `wörd`"


def test_a_key_is_no_part_of_a_copy(mortal: Swapper, visit: Visits) -> None:
    page = visit(f"{mortal.url}/key/{KEY}", permissions=["clipboard-read", "clipboard-write"])
    dialog = inspected(page, "hello")
    button(dialog, "Copy as curl").click()
    expect(button(dialog, "Copied")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    assert KEY not in command
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=30,
        env={**os.environ, "SWAPPER_API_KEY": KEY},
    )  # fmt: skip
    assert "data: [DONE]" in done.stdout


def test_says_that_nothing_is_kept(unkept: Swapper, visit: Visits) -> None:
    page = visit(unkept.url)
    expect(page.locator(".talk")).to_have_attribute(
        "data-empty", re.compile("Nothing of it is kept")
    )
    dialog = inspected(page, "hello")
    expect(dialog).to_contain_text("What was said is not kept")
    expect(dialog.get_by_role("region", name="Asked")).not_to_be_attached()


def test_requests_are_listed_once_the_newest_first(unkept: Swapper, visit: Visits) -> None:
    unkept.chat("quick")
    page = visit(unkept.url)
    rows = page.locator(".requests li")
    expect(rows).to_have_count(1)
    for count in (2, 3):
        unkept.chat("quick")
        expect(rows).to_have_count(count)
    numbers = rows.evaluate_all("rows => rows.map((row) => row.dataset.number)")
    assert numbers == ["3", "2", "1"]


def test_shows_what_is_lent(url: str, visit: Visits) -> None:
    page = visit(url)
    loan = httpx.post(f"{url}/lease", json={"host": "1GiB", "for": "1m"}, timeout=30).json()[
        "lease"
    ]
    expect(page.locator(".device .legend")).to_contain_text(re.compile(r"lent1\.0 GiB"))
    httpx.delete(f"{url}/lease/{loan}")
    expect(page.locator(".device .legend")).not_to_contain_text("lent")


def test_says_why_a_model_failed(url: str, visit: Visits) -> None:
    page = visit(url)
    button(row(page, "broken"), "Load").click()
    expect(row(page, "broken").locator(".state-words")).to_have_text("failed")
    expect(row(page, "broken").locator(".why")).to_contain_text("bad_file")
    expect(page.locator(".decisions")).to_contain_text("fail")


def test_chats_with_the_demo_model(url: str, visit: Visits) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    page = visit(url)
    answer = chat(page, "demo-chat", "What is swapper?")
    expect(answer.locator(".body")).to_contain_text(re.compile("swapper", re.IGNORECASE))
    expect(answer.locator(".cost")).to_contain_text(re.compile(r"first token .* tok/s.*\d+ tokens"))
    expect(row(page, "demo-chat")).to_contain_text("ready")
    expect(page.locator(".requests li").first).to_contain_text("demo-chat")
    expect(page.locator(".speed", has_text="demo-chat").locator(".plot-area")).to_be_attached()


def test_says_what_an_answer_waits_for_and_shows_the_swap(url: str, visit: Visits) -> None:
    page = visit(url)
    chat(page, "quick", "first")
    answer = say(page, "slow", "and now the other")
    expect(answer.locator(".status")).to_contain_text(re.compile(r"Loading slow, \d+ %"))
    expect(row(page, "slow").locator(".state-words")).to_contain_text("loading")
    expect(answer.locator(".cost")).to_contain_text("waited")
    expect(answer.locator(".cost")).to_have_text(ANSWERED)
    expect(answer.locator(".body")).to_have_text("and now the other")
    expect(row(page, "quick").locator(".state-words")).to_have_text("not loaded")
    lanes = page.locator(".lane-name")
    assert {"quick", "slow"} <= set(lanes.all_text_contents())
    expect(page.locator(".lanes .mark").first).to_be_attached()
    expect(page.locator(".decisions li", has_text="stop").first).to_contain_text("slow needs")


def test_stops_an_answer(url: str, visit: Visits) -> None:
    page = visit(url)
    answer = say(page, "slow", "a long answer " * 20)
    expect(answer.locator(".body")).to_contain_text("a long")
    button(page, "Stop").click()
    expect(answer.locator(".cost")).to_contain_text("stopped")
    expect(button(page, "Send")).to_be_visible()
    expect(row(page, "slow")).not_to_contain_text("in flight")  # the server was told


def test_reasoning_stands_apart(url: str, visit: Visits) -> None:
    page = visit(url)
    reply = "\n\n".join(
        f'data: {{"choices": [{{"index": 0, "delta": {delta}}}]}}'
        for delta in ('{"reasoning_content": "Let me think."}', '{"content": "Done."}')
    )
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        status=200, content_type="text/event-stream", body=f"{reply}\n\ndata: [DONE]\n\n"
    ))  # fmt: skip
    answer = chat(page, "scripted", "hello")
    expect(answer.locator(".reasoning-text")).to_have_text("Let me think.")
    expect(answer.locator(".body")).to_have_text("Done.")


def test_what_the_server_refuses_is_said(url: str, visit: Visits) -> None:
    page = visit(url, expected=("503",))
    answer = say(page, "broken", "hello")
    expect(answer.get_by_role("alert")).to_contain_text("broken could not be loaded")


def test_logs_by_model_found_and_paused(url: str, visit: Visits) -> None:
    page = visit(url)
    httpx.post(f"{url}/swapper/v1/models/broken/load")
    log = page.get_by_role("log", name="Output of workers")
    expect(log).to_contain_text("told to fail")
    page.get_by_label("Show lines with").fill("nothing like it")
    expect(log.locator("div:visible")).to_have_count(0)
    page.get_by_label("Show lines with").fill("")
    page.get_by_label("Logs of").select_option("quick")
    expect(log).not_to_contain_text("told to fail")
    button(page, "Pause").click()
    page.get_by_label("Logs of").select_option("broken")
    expect(log).not_to_contain_text("told to fail")
    button(page, "Go on").click()
    expect(log).to_contain_text("told to fail")


def test_asks_for_the_key_and_keeps_it_in_the_tab(mortal: Swapper, visit: Visits) -> None:
    page = visit(mortal.url, is_live=False, expected=("401",))
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key", exact=True).fill("wrong")
    dialog.get_by_label("Key", exact=True).press("Enter")
    expect(dialog).to_contain_text("This key does not do")
    dialog.get_by_label("Key", exact=True).fill(KEY)
    button(dialog, "Continue").click()
    expect(page.locator("#link")).to_have_text("Live")
    chat(page, "quick", "hello")
    page.reload()
    expect(page.locator("#link")).to_have_text("Live")
    assert KEY not in page.url
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""
    button(page, "Forget key").click()
    expect(dialog).to_be_visible()


def test_a_key_in_the_path_goes_with_every_request(mortal: Swapper, visit: Visits) -> None:
    page = visit(f"{mortal.url}/key/{KEY}")
    chat(page, "quick", "hello")
    expect(page.locator(".requests li")).to_have_count(1)
    expect(page.get_by_role("dialog")).not_to_be_visible()


def test_says_that_the_server_is_gone(mortal: Swapper, visit: Visits) -> None:
    page = visit(mortal.url, is_live=False, expected=("401", "ERR_"))
    page.get_by_label("Key", exact=True).fill(KEY)
    button(page, "Continue").click()
    expect(page.locator("#link")).to_have_text("Live")
    mortal.stop()
    expect(page.locator("#link")).to_contain_text("No connection, trying again in")


@pytest.mark.parametrize("width", [360, 390, 700, 1100, 1440])
def test_nothing_is_wider_than_the_screen(url: str, visit: Visits, width: int) -> None:
    page = visit(url, width=width, height=780)
    chat(page, "quick", "averylongwordwithoutanyspaceinit" * 6)
    chat(page, "slow", "next")
    button(row(page, "broken"), "Load").click()
    expect(row(page, "broken").locator(".state-words")).to_have_text("failed")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.evaluate(
        """[...document.querySelectorAll('section')].filter(s => s.scrollWidth > s.clientWidth + 1).map(s => s.id)"""
    )
    assert wide == []
    page.locator(".requests li", has_text="quick").first.get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("region", name="Answered")).to_be_visible()
    assert dialog.evaluate(
        "d => d.scrollWidth <= d.clientWidth && d.getBoundingClientRect().right <= innerWidth"
    )


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(url: str, visit: Visits, scheme: str, width: int) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    page = visit(url, color_scheme=scheme, reduced_motion="reduce", width=width)
    chat(page, "slow", "hello")
    button(row(page, "broken"), "Load").click()
    expect(row(page, "broken").locator(".state-words")).to_have_text("failed")
    assert violations(axe, page) == []
    dialog = inspected(page, "hello")
    expect(dialog.get_by_role("region", name="Answered")).to_be_visible()
    assert violations(axe, page) == []


def violations(axe: Any, page: Any) -> list[str]:
    found = axe.Axe().run(page).response["violations"]
    return [f"{v['id']}: {[node['target'] for node in v['nodes']]}" for v in found]


def test_by_keyboard_alone(url: str, visit: Visits) -> None:
    unload_all(url)
    page = visit(url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the models")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(button(row(page, "quick"), "Pin")).to_be_focused()
    page.keyboard.press("Space")
    expect(button(row(page, "quick"), "Pin")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    expect(button(row(page, "quick"), "Load")).to_be_focused()
    page.keyboard.press("Enter")
    expect(row(page, "quick").locator(".state-words")).to_have_text("ready")
    request = asked(page, "hello").get_by_role("button")
    request.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(button(page, "Close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).not_to_be_visible()
    expect(request).to_be_focused()
