"""`python -m backends.paged`: a worker for one checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from backends.serving.engine import Engine
from backends.serving.forkable import import_with_serving, prepare
from backends.serving.worker import run


def load(options: dict[str, Any], progress: Callable[[float], None]) -> Engine:
    """Called on a thread of its own, so torch is imported beside the HTTP half."""
    from backends.paged.start import load

    return load(options, progress)


def import_all() -> None:
    """Whatever a worker imports until it is ready."""
    import_with_serving("backends.paged.start")


def main() -> int:
    """One worker's life; its exit code."""
    prepare()
    return run(load)


if __name__ == "__main__":
    sys.exit(main())
