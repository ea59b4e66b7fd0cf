"""How full this machine's memory is, and what of it each worker holds.

`host` is RAM, bounded by our control group's limit; `cuda:0` and so on are NVIDIA GPUs. A page of a
mapped model file is called available by the kernel, for it could be read again. For a model that
serves it is not: such pages count as the worker's, and as not free.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from swapper.core.events import DeviceReading
from swapper.core.registry import Bytes
from swapper.runtime import cgroup
from swapper.runtime.nvidia import Gpu, read_gpus

HOST = "host"
MAX_AGE_S = 1.0


@dataclass(frozen=True, slots=True)
class Survey:
    """All devices at one moment. `footprints`: measured bytes by device of each worker that was
    there when it began."""

    readings: Mapping[str, DeviceReading]
    footprints: Mapping[str, Bytes] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()
    began_at: float = 0.0  # on the event loop's clock, where it was taken on one


@dataclass(frozen=True, slots=True)
class Held:
    """RAM of processes, what they share divided by sharers; `mapped`: the part that could be dropped
    and read again from files."""

    total: int = 0
    mapped: int = 0

    def __add__(self, other: Held) -> Held:
        return Held(self.total + other.total, self.mapped + other.mapped)


class Devices:
    """Surveys in a thread, and keeps the last one for a moment.

    `workers` tells the first process of every worker; it is called on the event loop.
    """

    def __init__(self, workers: Callable[[], Mapping[str, int]] = dict) -> None:
        self._workers = workers
        self._last: Survey | None = None
        self._taken_at = float("-inf")
        self._running: asyncio.Task[Survey] | None = None

    async def survey(self, max_age_s: float = MAX_AGE_S) -> Survey:
        """The last survey, or a new one when that is too old. Many callers share one."""
        if self._last is not None and time.monotonic() - self._taken_at <= max_age_s:
            return self._last
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._take())
        return await asyncio.shield(self._running)

    async def _take(self) -> Survey:
        try:
            began_at = asyncio.get_running_loop().time()
            taken = await asyncio.to_thread(survey, dict(self._workers()))
            self._last = replace(taken, began_at=began_at)
            self._taken_at = time.monotonic()
            return self._last
        finally:
            self._running = None


def survey(workers: Mapping[str, int]) -> Survey:
    """Read everything now. `workers`: their first processes. Blocks."""
    trees = process_trees(workers.values())
    gpus = tuple(read_gpus())
    held = {worker: host_memory_of(trees[pid]) for worker, pid in workers.items()}
    readings = {HOST: host_reading(sum(held.values(), Held()))}
    readings |= gpu_readings(gpus, trees.values())
    footprints = {
        worker: {HOST: held[worker].total, **gpu_memory_of(trees[pid], gpus)}
        for worker, pid in workers.items()
    }
    return Survey(readings, footprints, gpus)


def survey_gpus(workers: Mapping[str, int]) -> dict[str, DeviceReading]:
    """Read the GPUs alone, which is quicker. Blocks."""
    return gpu_readings(read_gpus(), process_trees(workers.values()).values())


def gpu_readings(gpus: Iterable[Gpu], trees: Iterable[set[int]]) -> dict[str, DeviceReading]:
    """All GPUs, with what these processes hold of them."""
    ours = set().union(*trees)
    return {gpu.name: gpu_reading(gpu, ours) for gpu in gpus}


def host_reading(ours: Held = Held()) -> DeviceReading:
    """RAM, or what our control group leaves of it."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    if limit := cgroup.memory_limit():
        total, free = min(total, limit.total), min(free, limit.free)
    return DeviceReading(total, max(0, free - ours.mapped), ours.total)


def gpu_reading(gpu: Gpu, ours: Iterable[int]) -> DeviceReading:
    """A GPU, with what the processes `ours` hold of it."""
    return DeviceReading(gpu.total, gpu.free, sum(gpu.processes.get(pid, 0) for pid in ours))


def gpu_memory_of(pids: Iterable[int], gpus: Iterable[Gpu]) -> dict[str, int]:
    """Bytes that the processes hold of each GPU they use."""
    pids = set(pids)
    held = {gpu.name: gpu_reading(gpu, pids).ours for gpu in gpus}
    return {name: number for name, number in held.items() if number}


def host_memory_of(pids: Iterable[int]) -> Held:
    """RAM that the processes hold together; those that are gone hold none."""
    return sum(map(_held_by, pids), Held())


def process_trees(roots: Iterable[int]) -> dict[int, set[int]]:
    """Each root with all its descendants. Only these are looked at: a machine may run thousands."""
    return {root: _tree(root) for root in roots}


def cpu_count() -> int:
    """Cores we may compute on: those this process may run on, bounded by its control group."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return cgroup.whole_cores(available, cgroup.cpu_quota())


def _tree(root: int) -> set[int]:
    tree, found = {root}, [root]
    while found:
        found = [pid for parent in found for pid in _children(parent) if pid not in tree]
        tree.update(found)
    return tree


def _children(pid: int) -> list[int]:
    """Of a process that may be gone. Linux lists them by thread; psutil has to look at everybody."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it went, or one of its threads did
        lists = []
    if lists:
        return [int(child) for listed in lists for child in listed.split()]
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def _held_by(pid: int) -> Held:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return _resident(pid)
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    mapped = max(0, kib.get("Pss_File", 0) - kib.get("Locked", 0))
    return Held(kib.get("Pss", 0) * 1024, mapped * 1024)


def _resident(pid: int) -> Held:
    """Not Linux, or a process that is not ours to look into."""
    try:
        return Held(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return Held()
