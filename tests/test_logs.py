"""Log lines that machines read."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from swapper.logs import JsonLine

PROGRAM = """
import structlog
from swapper.logs import set_up_logs
set_up_logs()
log = structlog.get_logger()
log.debug("not asked for")
log.info("request", model="chat", status=200, error=None)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broke", path=object)
"""


def test_a_stamp_is_the_time_to_the_microsecond() -> None:
    line = JsonLine()
    for _ in range(3):
        before = datetime.now(UTC)
        stamped = json.loads(line(None, "info", {}))["timestamp"]
        assert len(stamped) == len("2026-01-01T00:00:00.000000Z")
        moment = datetime.fromisoformat(stamped)
        assert before - timedelta(microseconds=1) <= moment <= datetime.now(UTC)


def test_a_second_that_has_passed_is_spelled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    line = JsonLine()
    times = iter([1_700_000_000_999_999_999, 1_700_000_001_000_001_000])
    monkeypatch.setattr("swapper.logs.time.time_ns", lambda: next(times))
    stamps = [json.loads(line(None, "info", {}))["timestamp"] for _ in range(2)]
    assert stamps == ["2023-11-14T22:13:20.999999Z", "2023-11-14T22:13:21.000001Z"]


def test_where_nobody_looks_a_line_is_one_json_object() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["request", "broke"]
    assert lines[0] | {"timestamp": ""} == {
        "event": "request",
        "level": "info",
        "model": "chat",
        "status": 200,
        "error": None,
        "timestamp": "",
    }
    assert "ZeroDivisionError" in lines[1]["exception"]
