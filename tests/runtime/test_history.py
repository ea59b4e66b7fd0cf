"""What is remembered over a restart, and what happens when it cannot be."""

import sqlite3
import threading
import time
from dataclasses import replace

import pytest
import structlog

from swapper.core.events import Measured
from swapper.runtime.history import FILE_NAME, MAX_DECISIONS, History, identity
from swapper.runtime.placement import LaunchSpec

CODER = LaunchSpec("coder", "llamacpp", options={"context": 4096})


@pytest.fixture
def history(tmp_path):
    """A function that closes the last history, as a restart does, and opens the next."""
    opened: list[History] = []

    def restart() -> History:
        for last in opened:
            last.close()
        opened.append(History(tmp_path))
        return opened[-1]

    yield restart
    for last in opened:
        last.close()


def remember(history, launch, settings, load_s, memory, **asleep):
    history.remember(launch, Measured(launch.model, settings, load_s, memory, **asleep))


def test_the_last_measurement_of_each_setting_survives_a_restart(history):
    first = history()
    remember(first, CODER, {"gpu_layers": 3, "threads": 2}, 4.0, {"host": 10})
    remember(first, CODER, {"gpu_layers": 0}, 9.0, {"host": 20})
    remember(first, CODER, {"threads": 2, "gpu_layers": 3}, 5.0, {"host": 11, "cuda:0": 7})
    expected = {
        ("coder", "gpu_layers=3,threads=2"): Measured(
            "coder", {"gpu_layers": 3, "threads": 2}, 5.0, {"host": 11, "cuda:0": 7}
        ),
        ("coder", "gpu_layers=0"): Measured("coder", {"gpu_layers": 0}, 9.0, {"host": 20}),
    }
    assert first.recall({"coder": CODER}) == expected
    assert history().recall({"coder": CODER}) == expected


def test_another_file_or_option_is_another_model(history, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"x" * 10)
    launch = LaunchSpec("coder", "llamacpp", options={"path": str(tmp_path / "m.gguf")})
    first = history()
    remember(first, launch, {}, 4.0, {"host": 10})
    assert first.recall({"coder": launch})
    assert not first.recall({"coder": replace(launch, options={**launch.options, "context": 9})})
    (tmp_path / "m.gguf").write_bytes(b"x" * 11)
    assert not first.recall({"coder": launch})


def test_memory_that_was_not_measured_this_time_stays(history):
    first = history()
    remember(first, CODER, {}, 4.0, {"host": 10})
    remember(first, CODER, {}, 3.0, {})
    measured = first.recall({"coder": CODER})["coder", ""]
    assert (measured.load_s, measured.memory) == (3.0, {"host": 10})


def test_decisions_come_newest_first_and_survive(history):
    first = history()
    for number in range(5):
        first.log_decision("ab"[number % 2], "evict", f"reason {number}")
    assert [d.reason for d in first.decisions("a", limit=2)] == ["reason 4", "reason 2"]
    again = history().decisions()
    assert [d.reason for d in again] == [f"reason {n}" for n in (4, 3, 2, 1, 0)]
    assert abs(again[0].at - time.time()) < 60


def test_decisions_are_bounded(history, tmp_path):
    first = history()
    for number in range(MAX_DECISIONS + 100):
        first.log_decision("a", "start", str(number))
    assert len(history().decisions(limit=10**6)) == MAX_DECISIONS
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        assert database.execute("SELECT COUNT(*) FROM decision").fetchone() == (MAX_DECISIONS,)
    database.close()


def test_writing_holds_nobody_up(history, tmp_path):
    """Not even while another program has the database locked."""
    first = history()
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("BEGIN EXCLUSIVE")
    begun = time.monotonic()
    for number in range(1000):
        first.log_decision("a", "start", str(number))
    assert time.monotonic() - begun < 1.0
    other.rollback()
    other.close()
    assert len(history().decisions(limit=10**6)) == 1000


def test_how_long_a_wake_took_and_what_was_held_asleep_stay_too(history):
    first = history()
    remember(first, CODER, {}, 4.0, {"cuda:0": 10}, wake_s=0.5, asleep={"host": 11})
    remember(first, CODER, {}, 3.0, {})
    measured = history().recall({"coder": CODER})["coder", ""]
    assert (measured.load_s, measured.wake_s, measured.asleep) == (3.0, 0.5, {"host": 11})


def test_a_database_of_a_swapper_that_knew_no_sleep_is_read(history, tmp_path):
    name = identity(CODER)
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute(
            "CREATE TABLE measured (model TEXT NOT NULL, key TEXT NOT NULL, settings TEXT NOT NULL,"
            " load_s REAL NOT NULL, memory TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (model, key))"
        )
        row = (name, "", "{}", 4.0, '{"host": 10}', 0.0)
        database.execute("INSERT INTO measured VALUES (?, ?, ?, ?, ?, ?)", row)
    database.close()
    expected = {("coder", ""): Measured("coder", {}, 4.0, {"host": 10})}
    assert history().recall({"coder": CODER}) == expected
    remember(history(), CODER, {}, 3.0, {}, wake_s=0.5)
    assert history().recall({"coder": CODER})["coder", ""].wake_s == 0.5


@pytest.mark.parametrize("damage", ["garbage", "a folder", "another program's"])
def test_a_useless_database_is_warned_of_once_and_left_alone(tmp_path, damage):
    path = tmp_path / FILE_NAME
    if damage == "garbage":
        path.write_bytes(b"not a database at all" * 100)
    elif damage == "a folder":
        path.mkdir()
    else:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE measured (something TEXT)")
        database.close()
    before = path.read_bytes() if path.is_file() else None
    with structlog.testing.capture_logs() as logs:
        history = History(tmp_path)
        remember(history, LaunchSpec("a", "echo"), {}, 1.0, {})
        history.log_decision("a", "start", "why")
        history.close()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert str(path) in logs[0]["file"]
    assert history.recall({"a": LaunchSpec("a", "echo")})["a", ""].load_s == 1.0
    assert history.decisions("a")[0].reason == "why"
    if damage == "garbage":
        assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with structlog.testing.capture_logs() as logs:
        history = History(tmp_path / "file" / "state")
        history.log_decision("a", "start", "why")
    assert len(logs) == 1
    assert len(history.decisions()) == 1


def test_closing_ends_the_thread(history):
    first = history()
    first.close()
    first.close()
    first.log_decision("a", "start", "after the end")
    assert "history" not in [thread.name for thread in threading.enumerate()]
