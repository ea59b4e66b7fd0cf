"""`python -m backends.paged`: a worker for one checkpoint."""

from __future__ import annotations

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


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    sys.exit(run(load))
