"""The engines that come with swapper, found as files: the proxy never imports them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

BACKENDS = Path(__file__).parents[3] / "backends"  # beside the package `swapper`, installed or not
QUICK_TO_START = frozenset(("llamacpp",))  # it imports what it needs while the file is read
FORKED = QUICK_TO_START | {"paged"}
# A forked worker shows its own command line in the place of its parent's, which this makes long enough.
ROOM_FOR_TITLES = " " * 512


def find_own_engine(name: str) -> tuple[str, ...] | None:
    """The command line that runs it, None if there is no such engine."""
    if not name.isidentifier():
        return None
    if not (BACKENDS / name / "__main__.py").is_file() and not (BACKENDS / f"{name}.py").is_file():
        return None
    return sys.executable, "-P", "-m", f"backends.{name}"  # -P: whatever lies in the current folder


def find_parent(name: str) -> tuple[str, ...] | None:
    """The command line of the process that forks its workers, for an engine that has one."""
    if name not in FORKED:
        return None
    manner = "patiently" if name in QUICK_TO_START else "at-once"
    parent = ("-m", "backends.serving.parent", f"backends.{name}", manner)
    return sys.executable, "-P", *parent, ROOM_FOR_TITLES


def environment() -> dict[str, str]:
    """What our engines need in their environment, beside the proxy's own."""
    env = {
        "PYTHONUNBUFFERED": "1",  # the log shows lines when they are written
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # so that everybody means the same GPU by `cuda:0`
    }
    if BACKENDS.parent.name not in ("site-packages", "dist-packages"):
        paths = (str(BACKENDS.parent), os.environ.get("PYTHONPATH", ""))
        env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return env
