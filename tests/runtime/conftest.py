"""Real workers for the tests of the runtime, and waiting for things without sleeping for them."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from swapper.core.events import Failure
from swapper.runtime.placement import LaunchSpec, WorkerFacts, WorkerHandle
from swapper.runtime.placement.local import LocalPlacement
from swapper.runtime.placement.own_engines import find_own_engine

HERE = Path(__file__).parent
FORKABLE = "tests.runtime.forkable"
PARENT = (sys.executable, "-P", "-m", "backends.serving.parent", FORKABLE)
PATIENCE_S = 30.0  # the machine may be busy; nothing waits this long when all is well


def find_engine(name: str) -> tuple[str, ...] | None:
    """`contract` is the scripted worker beside this file."""
    if name == "contract":
        return sys.executable, str(HERE / "contract_worker.py")
    return find_own_engine(name)


def find_forkable(name: str) -> tuple[str, ...] | None:
    """`contract` as a module, which the parent below can fork."""
    return (sys.executable, "-m", FORKABLE) if name == "contract" else find_own_engine(name)


def find_contract_parent(name: str) -> tuple[str, ...] | None:
    """The process that forks `contract`."""
    return PARENT if name == "contract" else None


class Recorder:
    """A worker that was started, and everything that was told of it, in order."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.lines: list[str] = []
        self._ready = asyncio.Event()
        self._exited = asyncio.Event()
        self.handle: WorkerHandle

    def on_progress(self, fraction: float) -> None:
        self.told.append(fraction)

    def on_ready(self, facts: WorkerFacts) -> None:
        self.told.append(facts)
        self._ready.set()

    def on_exit(self, failure: Failure | None) -> None:
        self.told.append(("exit", failure))
        self._exited.set()

    async def ready(self) -> WorkerFacts:
        waits = {asyncio.ensure_future(e.wait()) for e in (self._ready, self._exited)}
        _, late = await asyncio.wait(waits, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        for task in late:
            task.cancel()
        assert self._ready.is_set(), f"not ready: {self.told}, {self.lines}"
        return next(x for x in self.told if isinstance(x, WorkerFacts))

    async def gone(self) -> Failure | None:
        await asyncio.wait_for(self._exited.wait(), PATIENCE_S)
        exits = [x for x in self.told if isinstance(x, tuple)]
        assert len(exits) == 1
        assert self.told[-1] is exits[0]
        return exits[0][1]

    async def stopped(self, grace_s: float = PATIENCE_S) -> None:
        self.handle.stop(grace_s)
        assert await self.gone() is None


@pytest.fixture
def run_dir():
    """A folder whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="run") as folder:
        yield Path(folder)


@pytest.fixture
async def placement(run_dir):
    placement = LocalPlacement(run_dir, find_engine=find_engine)
    yield placement
    await placement.close()


@pytest.fixture
def launch(placement) -> Callable[..., Recorder]:
    """Starts workers: launch(engine, load_timeout_s=..., **fields of LaunchSpec)."""
    count = 0

    def launch(engine: str, *, load_timeout_s=PATIENCE_S, settings=None, **fields) -> Recorder:
        nonlocal count
        count += 1
        spec = LaunchSpec(**{"model": "model", "engine": engine, **fields})
        worker = Recorder()
        worker.handle = placement.start(
            f"{spec.model}#{count}",
            spec,
            settings or {},
            load_timeout_s,
            on_progress=worker.on_progress,
            on_ready=worker.on_ready,
            on_exit=worker.on_exit,
            on_output=worker.lines.append,
        )
        return worker

    return launch


async def eventually(condition: Callable[[], object], within_s: float = PATIENCE_S) -> object:
    """What `condition` gives as soon as it is true."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, "it did not come true"
        await asyncio.sleep(0.01)
    return value


def number_in(path: Path) -> int | None:
    """The process number a script has written there, once it has."""
    return int(path.read_text()) if path.exists() else None


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
