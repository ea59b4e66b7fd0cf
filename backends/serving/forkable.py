"""What the workers of every engine of ours do before they compute, whether they are started or forked."""

from __future__ import annotations

import contextlib
import importlib
import os

# How long a compute thread spins at a barrier before it sleeps. There is a barrier in every layer's every
# operation, and by GCC's default a thread spins there for milliseconds: as soon as another program wants a
# core, the threads that spin keep it from the one that is waited for, and all come to a tenth of their speed.
# With this they come to their share.
SPINS = "3000"


def prepare() -> None:
    """Set what OpenMP's library reads when it is opened."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def import_with_serving(*modules: str) -> None:
    """Import an engine's modules, and those by which a worker serves it."""
    for name in (*modules, "backends.serving.lifecycle"):
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")
