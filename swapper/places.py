"""The folders of one swapper: where it remembers, and where its workers are reached."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """Where measurements are kept: the service manager's choice, or the user's state folder."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "swapper"


def runtime_dir() -> Path:
    """Where workers' sockets live: the service manager's choice, the user's, or the state folder."""
    if given := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0])
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "swapper" if base else state_dir() / "run"
