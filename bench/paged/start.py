"""From the order to start a worker to its report that it is ready.

    python -m bench.paged.start [--rounds 7] [--path FOLDER]

Started as a program of its own each time, and forked by a parent that has the engine imported; the
first fork waits for the parent's imports, and stands in a line of its own. Beside it the memory of
the parent, and of a worker with and without one (proportional set size).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from swapper.core.events import Failure
from swapper.runtime.devices import host_memory_of
from swapper.runtime.placement import LaunchSpec, WorkerFacts
from swapper.runtime.placement.local import LocalPlacement
from swapper.runtime.placement.own_engines import find_parent

DEMO = Path(__file__).parents[2] / "swapper" / "demo" / "demo-chat"


async def start(placement: LocalPlacement, path: Path) -> tuple[float, str]:
    """Seconds until one worker was ready, and what it and its parent hold then. It is stopped again."""
    ready: asyncio.Future[WorkerFacts] = asyncio.get_running_loop().create_future()
    gone = asyncio.Event()

    def on_exit(failure: Failure | None) -> None:
        gone.set()
        if not ready.done():
            ready.set_exception(RuntimeError(str(failure)))

    begun = time.perf_counter()
    handle = placement.start(
        "bench#1",
        LaunchSpec("bench", "paged", options={"path": str(path), "threads": 1}),
        {"gpu_layers": 0, "devices": ["cpu"]},
        60.0,
        on_progress=lambda _: None,
        on_ready=ready.set_result,
        on_exit=on_exit,
        on_output=print,
    )
    await ready
    taken = time.perf_counter() - begun
    worker = host_memory_of([handle.pid]).total if handle.pid else 0
    parent = host_memory_of(placement.parents.values()).total
    handle.stop(10.0)
    await gone.wait()
    return taken, f"worker {worker / 1e6:.0f} MB, parent {parent / 1e6:.0f} MB"


async def measure(
    name: str, find: Callable[[str], tuple[str, ...] | None], path: Path, rounds: int
) -> None:
    """So many starts one after another."""
    with tempfile.TemporaryDirectory(prefix="run") as folder:
        placement = LocalPlacement(Path(folder), find_parent=find)
        try:
            first, memory = await start(placement, path)
            print(f"{name}, first: {1000 * first:.0f} ms; {memory}")
            taken = []
            for _ in range(rounds):
                seconds, memory = await start(placement, path)
                taken.append(1000 * seconds)
            print(
                f"{name}, then: median {statistics.median(taken):.0f} ms, "
                f"{min(taken):.0f} to {max(taken):.0f}; {memory}"
            )
        finally:
            await placement.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--path", type=Path, default=DEMO)
    given = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f}")
    asyncio.run(measure("started", lambda _: None, given.path, given.rounds))
    asyncio.run(measure("forked", find_parent, given.path, given.rounds))


if __name__ == "__main__":
    main()
