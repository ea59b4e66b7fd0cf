"""What the control groups this process is in allow it, and what they count. Linux; v1 and v2.

Every function says None, or 0 for the counter, where there is no limit or no control group.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
NO_LIMIT = 1 << 60  # v1 writes a number close to 2**63 for "none"


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """`free` counts what the kernel could take back (page cache) as free."""

    total: int
    free: int


def memory_limit() -> MemoryLimit | None:
    """The tightest memory limit above us, in bytes."""
    limits = [limit for folder in _folders("memory") if (limit := _limit_of(folder))]
    if not limits:
        return None
    return MemoryLimit(min(x.total for x in limits), min(x.free for x in limits))


def cpu_quota() -> float | None:
    """How many cores' worth of time we may use."""
    quotas = [quota for folder in _folders("cpu") if (quota := _quota_of(folder))]
    return min(quotas, default=None)


def oom_kills() -> int:
    """How often the kernel has killed a process for lack of memory; only its growth has a meaning."""
    counts = [_value(path, "oom_kill") for path in _oom_counters()]
    return sum(count for count in counts if count)


def whole_cores(available: int, quota: float | None) -> int:
    """Cores to plan with: those available, bounded by the quota, and at least one."""
    return max(1, available if quota is None else min(available, math.ceil(quota)))


def _oom_counters() -> Iterator[Path]:
    for folder in _folders("memory"):
        yield folder / "memory.events"
        yield folder / "memory.oom_control"
    yield Path("/proc/vmstat")


def _folders(controller: str) -> Iterator[Path]:
    """Our control group's folder and all above it, as far as they are to be seen here."""
    for base, path in _memberships(controller):
        here = base / path.strip("/")
        while True:
            if here.is_dir():
                yield here
            if here == base or base not in here.parents:
                break
            here = here.parent


def _memberships(controller: str) -> Iterator[tuple[Path, str]]:
    for line in _text(MEMBERSHIP).splitlines():
        _, names, path = line.split(":", 2)
        if not names:
            yield (ROOT if (ROOT / "cgroup.controllers").exists() else ROOT / "unified"), path
        elif controller in names.split(","):
            yield ROOT / controller, path


def _limit_of(folder: Path) -> MemoryLimit | None:
    """v2's files, else v1's."""
    total = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
    used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
    if total is None or used is None or total >= NO_LIMIT:
        return None
    stat = folder / "memory.stat"
    cache = sum(
        _value(stat, f"total_{kind}_file") or _value(stat, f"{kind}_file") or 0
        for kind in ("active", "inactive")
    )
    return MemoryLimit(total, max(0, min(total, total - used + cache)))


def _quota_of(folder: Path) -> float | None:
    """v2's file, else v1's."""
    words = _text(folder / "cpu.max").split()
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota / period if quota and period and quota > 0 else None


def _value(path: Path, key: str) -> int | None:
    """The number after `key` in a file of such lines."""
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
