"""`python -m backends.llamacpp`: a worker for one GGUF model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from backends.serving.engine import Engine
from backends.serving.forkable import import_with_serving, prepare
from backends.serving.worker import run


def load(options: dict[str, Any], progress: Callable[[float], None]) -> Engine:
    """Called on a thread of its own, so llama.cpp's library is opened beside the HTTP half's imports."""
    from backends.llamacpp.start import load

    return load(options, progress)


def import_all() -> None:
    """Whatever a worker imports until it is ready. llama.cpp's library looks for GPUs when it is first
    called, which no import does."""
    modules = ("start", "embedder", "engine", "pace", "scheduler")
    import_with_serving(*(f"backends.llamacpp.{name}" for name in modules))


def main() -> int:
    """One worker's life; its exit code."""
    prepare()
    return run(load)


if __name__ == "__main__":
    sys.exit(main())
