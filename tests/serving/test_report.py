"""The report: whole lines, progress that never falls, and no error when nobody reads."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from backends.serving.memory import host_bytes
from backends.serving.report import Report


def lines(reading: int) -> list[Any]:
    with os.fdopen(reading) as report:
        return [json.loads(line) for line in report]


def test_progress_rises_and_ends_at_one() -> None:
    reading, writing = os.pipe()
    report = Report(writing)
    for part in (0.0, 0.3, 0.2, 0.3001, 0.999, 0.9999, 1.0, 1.0, 5.0):
        report.loading(part)
    report.ready({"host": 3, "cuda:0": 4}, 9, {"chat", "a"})
    os.close(writing)
    *progress, ready = lines(reading)
    assert [event["progress"] for event in progress] == [0.0, 0.3, 0.999, 1.0]
    assert ready == {
        "event": "ready",
        "memory": {"host": 3, "cuda:0": 4},
        "context": 9,
        "capabilities": ["a", "chat"],
    }


def test_a_reader_that_left_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    report = Report(writing)
    report.failed("crashed", "x")
    report.failed("crashed", "x")
    os.close(writing)


@pytest.mark.parametrize("value", [None, "", "x", "9999", "-1"])
def test_no_descriptor_is_no_error(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("SWAPPER_REPORT_FD", raising=False)
    if value is not None:
        monkeypatch.setenv("SWAPPER_REPORT_FD", value)
    Report.from_environment().failed("crashed", "x")


def test_the_main_of_a_worker_imports_nothing_heavy() -> None:
    code = "import sys, backends.serving.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"aiohttp", "asyncio", "numpy", "jinja2", "msgspec", "uvloop", "ssl", "argparse"}
    assert heavy.isdisjoint(done.stdout.split())


def test_memory_is_measured() -> None:
    assert 5_000_000 < host_bytes() < 50_000_000_000
