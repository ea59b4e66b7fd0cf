"""What the page for Prometheus says, and whether the dashboard asks for what is there."""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backends.paged.block_manager import BlockManager
from backends.paged.metrics import Counters, render
from backends.paged.scheduler import Scheduler
from swapper.config import DEMO_FOLDER
from swapper.front.worker_metrics import relabelled
from tests.system.conftest import Swapper, eventually

Serve = Callable[..., Swapper]
Names = Mapping[str, set[str]]  # labels, by the metric's name
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "swapper.json"
SWAPPING = """
max_loaded: 1
models:
  one: {engine: echo, options: {load_s: 0.3}}
  two: {engine: echo, options: {load_s: 0.3}}
"""
SLOWLY = "  slow: {engine: echo, options: {load_s: 2}}"  # a page is kept for 0.9 s
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="(?:[^"\\]|\\.)*"')
ASKED = re.compile(r"\b((?:swapper_|llamacpp:|vllm:)\w+)(\{[^}]*\})?")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
GROUPED = re.compile(r"\bby\s*\(([^)]*)\)")
SHOWN = re.compile(r"\{\{(\w+)\}\}")


def test_decisions_are_counted_with_their_cause(serve: Serve) -> None:
    swapper = serve(SWAPPING)
    swapper.chat("one")
    swapper.chat("two")
    page = swapper.get("/metrics").text
    assert 'swapper_decisions_total{model="one",action="stop",cause="room"} 1\n' in page
    assert 'swapper_decisions_total{model="two",action="start",cause=""} 1\n' in page
    assert re.search(r'swapper_device_memory_bytes\{device="host",kind="budget"\} [1-9]', page)


# ---------------------------------------------------------------- the dashboard


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())  # type: ignore[no-any-return]


def test_the_dashboard_asks_for_what_is_there(serve: Serve, dashboard: dict[str, Any]) -> None:
    known = samples(relabelled({"m": of_the_paged_engine()}))
    for more in (of_echo(serve), of_llamacpp(serve)):
        for name, labels in more.items():
            known.setdefault(name, set()).update(labels)
    asked: dict[str, set[str]] = defaultdict(set)
    for panel in panels(dashboard):
        for query in panel.get("targets", ()):
            for name, labels in in_query(query).items():
                asked[name] |= labels
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()
            asked[name].add(label)
    assert len(asked) > 20
    assert {name: labels - known.get(name, set()) for name, labels in asked.items()} == {
        name: set() for name in asked
    }
    assert set(asked) - set(known) == set()


def test_the_dashboard_can_be_imported_anywhere(dashboard: dict[str, Any]) -> None:
    assert dashboard["id"] is None
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    shown = list(panels(dashboard))
    assert len({panel["id"] for panel in shown}) == len(shown)
    for panel in shown:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["title"]
            assert panel["targets"]


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def in_query(query: Mapping[str, str]) -> dict[str, set[str]]:
    """The labels that a query uses, by metric: in matchers, by grouping, in the legend."""
    text = query["expr"]
    shared = {label.strip() for group in GROUPED.findall(text) for label in group.split(",")}
    shared |= set(SHOWN.findall(query.get("legendFormat", "")))
    return {name: shared | set(MATCHER.findall(matchers)) for name, matchers in ASKED.findall(text)}


def samples(lines: list[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, labels in SAMPLE.findall("\n".join(lines)):
        found.setdefault(name, set()).update(LABEL.findall(labels))
    return found


def of_echo(serve: Serve) -> dict[str, set[str]]:
    """Of a page while somebody waits, and of one after a swap."""
    swapper = serve(SWAPPING + SLOWLY)
    swapper.chat("one")
    asking = threading.Thread(target=swapper.chat, args=("slow",))
    asking.start()
    waiting = eventually(lambda: re.search("^swapper_waiting{.*", page_of(swapper), re.MULTILINE))
    assert isinstance(waiting, re.Match)
    asking.join()
    swapped = "swapper_request_swap_seconds_count"
    page = eventually(lambda: text if swapped in (text := page_of(swapper)) else None)
    return samples([waiting.group(), *str(page).splitlines()])


def of_llamacpp(serve: Serve) -> dict[str, set[str]]:
    path = next(DEMO_FOLDER.glob("*.gguf"))
    swapper = serve(f"models:\n  small: {{engine: llamacpp, path: '{path}', context: 256}}\n")
    assert swapper.chat("small", max_tokens=2).status_code == 200
    return samples(page_of(swapper).splitlines())


def of_the_paged_engine() -> str:
    """Told by the code itself: torch may not be here."""
    scheduler = Scheduler(BlockManager(4), budget=64, max_running=1)
    return render("m", scheduler, Counters())


def page_of(swapper: Swapper) -> str:
    return swapper.get("/metrics").text
