"""How much host memory this process holds, measured."""

from __future__ import annotations

import re
import sys


def host_bytes() -> int:
    """Proportional set size: shared pages count by their share, a mapped model file counts."""
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
            found = re.search(r"^Pss:\s+(\d+) kB", rollup.read(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else _peak_bytes()


def _peak_bytes() -> int:
    """Where the system has no proportional set size: the largest resident size so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
