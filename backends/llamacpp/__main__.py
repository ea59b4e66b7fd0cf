"""`python -m backends.llamacpp`: a worker for one GGUF model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from backends.serving.engine import Engine
from backends.serving.worker import run


def load(options: dict[str, Any], progress: Callable[[float], None]) -> Engine:
    """Called on a thread of its own, so llama.cpp's library is opened beside the HTTP half's imports."""
    from backends.llamacpp.start import load

    return load(options, progress)


if __name__ == "__main__":
    sys.exit(run(load))
