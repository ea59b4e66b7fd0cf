"""`python -m backends.llamacpp`: a worker for one GGUF model."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from backends.serving.engine import Engine
from backends.serving.worker import run

# How long a compute thread spins at a barrier before it sleeps; read when OpenMP's library is opened.
# There is a barrier in every layer's every operation, and by GCC's default a thread spins there for
# milliseconds: as soon as another program wants a core, the threads that spin keep it from the one that is
# waited for, and all come to a tenth of their speed. With this they come to their share.
SPINS = "3000"


def load(options: dict[str, Any], progress: Callable[[float], None]) -> Engine:
    """Called on a thread of its own, so llama.cpp's library is opened beside the HTTP half's imports."""
    from backends.llamacpp.start import load

    return load(options, progress)


def prepare() -> None:
    """Before OpenMP's library is opened."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def import_all() -> None:
    """Whatever a worker imports until it is ready. llama.cpp's library looks for GPUs when it is first
    called, which no import does."""
    for name in ("start", "embedder", "engine", "pace", "scheduler"):
        importlib.import_module(f"backends.llamacpp.{name}")
    importlib.import_module("backends.serving.lifecycle")
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")


def main() -> int:
    """One worker's life; its exit code."""
    prepare()
    return run(load)


if __name__ == "__main__":
    sys.exit(main())
