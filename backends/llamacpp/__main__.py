"""`python -m backends.llamacpp`: a worker for one GGUF model."""

from __future__ import annotations

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


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    sys.exit(run(load))
