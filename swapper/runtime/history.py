"""What is worth remembering over restarts: how long models took to load, what they took, and why
swapper did what it did.

Everything is kept in memory and read from there; the database is written behind, in a thread, many
things at a time. Without a usable database swapper forgets at its end, and works.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

import structlog

from swapper.core.events import Measured
from swapper.core.registry import Variant
from swapper.runtime.placement import LaunchSpec

log = structlog.get_logger(__name__)

FILE_NAME = "history.sqlite3"
MAX_DECISIONS = 5000  # of all models together
PAUSE_S = 0.5  # between two writes, for more to come together
SCHEMA = """
    CREATE TABLE IF NOT EXISTS measured (
        model TEXT NOT NULL, key TEXT NOT NULL, settings TEXT NOT NULL,
        load_s REAL NOT NULL, memory TEXT NOT NULL, at REAL NOT NULL,
        wake_s REAL, asleep TEXT NOT NULL DEFAULT '{}',
        PRIMARY KEY (model, key));
    CREATE TABLE IF NOT EXISTS decision (
        id INTEGER PRIMARY KEY, at REAL NOT NULL,
        model TEXT NOT NULL, action TEXT NOT NULL, reason TEXT NOT NULL);
"""
LATER_COLUMNS = {"wake_s": "REAL", "asleep": "TEXT NOT NULL DEFAULT '{}'"}  # than the first version
REMEMBER = """
    INSERT OR REPLACE INTO measured (model, key, settings, load_s, memory, at, wake_s, asleep)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
LOG = "INSERT INTO decision (at, model, action, reason) VALUES (?, ?, ?, ?)"
PRUNE = "DELETE FROM decision WHERE id <= (SELECT MAX(id) FROM decision) - ?"

Write: TypeAlias = tuple[str, tuple[object, ...]]


def identity(launch: LaunchSpec) -> str:
    """The name under which a model's measurements are kept: another for another file or option."""
    parts: list[object] = [asdict(launch)]
    try:
        stat = os.stat(str(launch.options.get("path", "")))
        parts += [stat.st_size, stat.st_mtime_ns]
    except OSError:
        pass  # no file, or not there: the options alone tell
    digest = hashlib.sha256(json.dumps(parts, default=dict, sort_keys=True).encode())
    return f"{launch.model}@{digest.hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the decision log; `at` in seconds since the epoch."""

    at: float
    model: str
    action: str
    reason: str


class History:
    """The memory of one swapper. Use it from one thread; reading it blocks only in the constructor.

    A database that cannot be opened, read or written is left as it is, and warned of once.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._measured: dict[tuple[str, str], Measured] = {}
        self._decisions: deque[Decision] = deque(maxlen=MAX_DECISIONS)
        self._writes: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._load()
        except (sqlite3.Error, OSError, ValueError) as error:
            self._warn(error)
        else:
            self._thread = threading.Thread(target=self._write_behind, name="history", daemon=True)
            self._thread.start()

    def remember(self, launch: LaunchSpec, measured: Measured) -> None:
        """Keep what was measured of a model under its settings, in place of what was kept before;
        what was not measured this time stays."""
        name, key = identity(launch), Variant(settings=measured.settings).key
        kept = self._measured.get((name, key))
        if kept is not None:
            measured = replace(
                measured,
                memory={**kept.memory, **measured.memory},
                wake_s=kept.wake_s if measured.wake_s is None else measured.wake_s,
                asleep=measured.asleep or kept.asleep,
            )
        self._measured[name, key] = measured
        settings, memory, asleep = (
            json.dumps(dict(told)) for told in (measured.settings, measured.memory, measured.asleep)
        )
        at = time.time()
        row = (name, key, settings, measured.load_s, memory, at, measured.wake_s, asleep)
        self._write(REMEMBER, row)

    def recall(self, launches: Mapping[str, LaunchSpec]) -> dict[tuple[str, str], Measured]:
        """What was measured of these models as they are now, by their name and `Variant.key`."""
        return _of(launches, self._measured)

    def log_decision(self, model: str, action: str, reason: str) -> None:
        """Keep one line of the decision log. The oldest give way."""
        decision = Decision(time.time(), model, action, reason)
        self._decisions.append(decision)
        self._write(LOG, (decision.at, model, action, reason))

    def decisions(self, model: str | None = None, limit: int = 100) -> list[Decision]:
        """The last decisions about a model, or about all, newest first."""
        found = (d for d in reversed(self._decisions) if model is None or d.model == model)
        return [decision for decision, _ in zip(found, range(limit), strict=False)]

    def close(self) -> None:
        """Write what is left to be written. Blocks until that is done."""
        if self._thread is not None:
            self._closing.set()
            self._writes.put(None)
            self._thread.join()
            self._thread = None

    def _load(self) -> None:
        with closing(_open(self._path)) as database, database:
            database.executescript(SCHEMA)
            _add_columns(database)
            self._measured = _read_all(database)
            rows = database.execute("SELECT at, model, action, reason FROM decision ORDER BY id")
            self._decisions.extend(Decision(*row) for row in rows)

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._writes.put((statement, values))

    def _write_behind(self) -> None:
        """The thread: until `close`, or until the database fails."""
        try:
            with closing(_open(self._path)) as database:
                while not self._closing.is_set() or not self._writes.empty():
                    _write_all(database, self._next_writes())
        except sqlite3.Error as error:
            self._warn(error)

    def _next_writes(self) -> list[Write]:
        """All that has come together, a pause after the first."""
        writes = [self._writes.get()]
        self._closing.wait(PAUSE_S)
        while not self._writes.empty():
            writes.append(self._writes.get())
        return [write for write in writes if write is not None]

    def _warn(self, error: Exception) -> None:
        log.warning(
            "measurements and decisions are not kept over a restart; repair or remove the file",
            file=str(self._path),
            reason=str(error),
        )


def read_measured(
    folder: Path, launches: Mapping[str, LaunchSpec]
) -> dict[tuple[str, str], Measured]:
    """As `History.recall`, from the database of a swapper that may be running. Changes nothing; what
    cannot be read counts as nothing. Blocks."""
    uri = f"{(folder / FILE_NAME).absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=1.0)) as database:
            return _of(launches, _read_all(database))
    except (sqlite3.Error, ValueError):
        return {}


def _read_all(database: sqlite3.Connection) -> dict[tuple[str, str], Measured]:
    """Everything measured, by identity and `Variant.key`."""
    columns = "model, key, settings, load_s, memory, wake_s, asleep"
    return {
        (name, key): Measured(
            model=name.rpartition("@")[0],
            settings=json.loads(settings),
            load_s=load_s,
            memory=json.loads(memory),
            wake_s=wake_s,
            asleep=json.loads(asleep),
        )
        for name, key, settings, load_s, memory, wake_s, asleep in database.execute(
            f"SELECT {columns} FROM measured"
        )
    }


def _add_columns(database: sqlite3.Connection) -> None:
    """To a database of an older swapper."""
    known = {row[1] for row in database.execute("PRAGMA table_info(measured)")}
    if "load_s" not in known:
        return  # not a swapper's
    for name in LATER_COLUMNS.keys() - known:
        database.execute(f"ALTER TABLE measured ADD COLUMN {name} {LATER_COLUMNS[name]}")


def _of(
    launches: Mapping[str, LaunchSpec], measured: Mapping[tuple[str, str], Measured]
) -> dict[tuple[str, str], Measured]:
    """What of it is of these models as they are now, by their name and `Variant.key`."""
    names = {identity(launch): name for name, launch in launches.items()}
    return {(names[i], key): m for (i, key), m in measured.items() if i in names}


def _write_all(database: sqlite3.Connection, writes: Iterable[Write]) -> None:
    with database:
        for statement, values in writes:
            database.execute(statement, values)
        database.execute(PRUNE, (MAX_DECISIONS,))


def _open(path: Path) -> sqlite3.Connection:
    """For use in the thread that opens it; others' locks are waited for."""
    database = sqlite3.connect(path, timeout=5.0)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    return database
