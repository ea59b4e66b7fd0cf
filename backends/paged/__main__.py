"""`python -m backends.paged`: a worker for one checkpoint."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from backends.serving.engine import Engine
from backends.serving.worker import run

# How long a compute thread spins at a barrier before it sleeps; read when OpenMP's library is opened. By
# default it spins for milliseconds, and keeps the core from the thread that is waited for as soon as
# another program wants one.
SPINS = "3000"


def load(options: dict[str, Any], progress: Callable[[float], None]) -> Engine:
    """Called on a thread of its own, so torch is imported beside the HTTP half."""
    from backends.paged.start import load

    return load(options, progress)


def prepare() -> None:
    """Before OpenMP's library is opened."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def import_all() -> None:
    """Whatever a worker imports until it is ready."""
    for name in ("backends.paged.start", "backends.serving.lifecycle"):
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")


def main() -> int:
    """One worker's life; its exit code."""
    prepare()
    return run(load)


if __name__ == "__main__":
    sys.exit(main())
