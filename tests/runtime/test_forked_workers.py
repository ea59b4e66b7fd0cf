"""Workers forked by a parent: all that holds for started ones, and what is different."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from swapper.runtime.parent import Parent
from swapper.runtime.placement import LaunchSpec
from swapper.runtime.placement.local import LocalPlacement
from swapper.runtime.process_group import Program

from .conftest import (
    PARENT,
    eventually,
    find_contract_parent,
    find_forkable,
    is_alive,
    open_descriptors,
)
from .test_own_workers import (  # noqa: F401 - run here again, with the placement below
    test_a_flood_of_output_stops_nothing,
    test_a_reported_failure_is_what_is_told,
    test_a_worker_that_crashes_while_it_serves,
    test_an_unreported_failure_is_classified,
    test_one_that_ignores_term_is_killed_after_its_grace,
    test_one_that_never_becomes_ready_is_ended_with_its_children,
    test_options_are_handed_over_in_private_and_then_removed,
    test_progress_comes_before_ready_and_never_falls,
    test_stopping_before_it_was_spawned,
    test_stopping_while_it_loads_means_no_ready,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CLONE_PARENT is Linux's")
DEMO = Path(__file__).parents[2] / "swapper" / "demo" / "demo-chat"
GGUF = {"options": {"path": f"{DEMO}.gguf", "threads": 1}, "settings": {"gpu_layers": 0}}
PAGED = {"options": {"path": str(DEMO), "threads": 1}, "settings": {"gpu_layers": 0}}


@pytest.fixture
def find_parent():
    """Which parent there is for an engine; a test may have another."""
    return find_contract_parent


@pytest.fixture
async def placement(run_dir, find_parent):
    placement = LocalPlacement(run_dir, find_engine=find_forkable, find_parent=find_parent)
    yield placement
    await placement.close()
    assert not placement.parents


def cpu_s(pid: int) -> float:
    """What it has computed; the time on a clock depends on who else runs."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def parent_of(placement) -> int:
    return placement.parents["contract"]


async def test_it_is_our_child_and_shows_what_it_runs(launch, placement):
    worker = launch("contract", settings={"gpu_layers": 0})
    await worker.ready()
    shown = psutil.Process(worker.handle.pid)
    assert shown.ppid() == os.getpid()
    assert shown.environ()["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in psutil.Process(parent_of(placement)).environ()
    assert os.getsid(shown.pid) == shown.pid != parent_of(placement)
    await worker.stopped()
    assert not psutil.pid_exists(shown.pid)  # not even as a zombie


async def test_workers_differ_by_their_environment_and_their_chance(launch, tmp_path):
    paths = [tmp_path / "one", tmp_path / "two"]
    workers = [
        launch("contract", options={"dump": str(path)}, settings={"gpu_layers": layers})
        for path, layers in zip(paths, (0, 1), strict=True)
    ]
    await asyncio.gather(*(worker.ready() for worker in workers))
    one, two = (json.loads(path.read_text()) for path in paths)
    assert one["env"].pop("CUDA_VISIBLE_DEVICES") == ""
    assert one["env"].keys() == two["env"].keys() - {"CUDA_VISIBLE_DEVICES"}
    assert one["env"]["SWAPPER_WORKER"] != two["env"]["SWAPPER_WORKER"]
    assert one["random"] != two["random"]


async def test_an_environment_that_libraries_have_read_already_means_a_start(launch, placement):
    worker = launch("contract", env={"OMP_NUM_THREADS": "1"})
    await worker.ready()
    assert not placement.parents


async def test_a_killed_parent_takes_no_worker_along_and_is_made_anew(launch, placement):
    worker, first = launch("contract"), None
    await worker.ready()
    first = parent_of(placement)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: not placement.parents and not psutil.pid_exists(first))
    other = launch("contract")
    await other.ready()
    assert parent_of(placement) != first
    assert is_alive(worker.handle.pid)
    os.kill(worker.handle.pid, signal.SIGSEGV)
    assert "SIGSEGV" in (await worker.gone()).reason


async def test_a_parent_killed_before_it_answered_means_a_start(launch, placement):
    worker = launch("contract")
    os.kill(await eventually(lambda: placement.parents.get("contract")), signal.SIGKILL)
    await worker.ready()
    await worker.stopped()


async def test_nothing_is_left_open(launch, placement):
    await launch("contract").ready()
    before = open_descriptors()
    for _ in range(5):
        worker = launch("contract")
        await worker.ready()
        await worker.stopped()
    assert open_descriptors() == before
    in_parent = os.listdir(f"/proc/{parent_of(placement)}/fd")
    assert sorted(in_parent) == ["0", "1", "2"]


@pytest.mark.parametrize(
    "find_parent",
    [
        lambda _: (sys.executable, "-P", "-m", "backends.serving.parent", "no.such.engine"),
        lambda _: ("/no/such/program",),
        lambda _: (sys.executable, "-c", "raise SystemExit(1)"),
    ],
)
async def test_without_a_parent_workers_are_started_and_it_is_said_once(launch, placement):
    with capture_logs() as logs:
        for _ in range(2):
            worker = launch("contract")
            await worker.ready()
            await worker.stopped()
    said = [entry for entry in logs if "started, not forked" in entry["event"]]
    assert len(said) == 1
    assert said[0]["error"]
    assert not placement.parents


async def test_one_with_threads_forks_nothing(tmp_path):
    threads = "import threading, runpy, sys; sys.argv = ['parent', 'tests.runtime.forkable']; "
    threads += "threading.Thread(target=threading.Event().wait, daemon=True).start(); "
    threads += "runpy.run_module('backends.serving.parent', run_name='__main__')"
    root = str(Path(__file__).parents[2])
    program = Program((sys.executable, "-c", threads), "/nowhere/", env={"PYTHONPATH": root})
    parent = Parent(program)
    with capture_logs() as logs:
        assert await parent.fork(["x", "-m", "x"], {}, [0, 1, 2]) is None
    assert "threads" in logs[0]["error"]
    await parent.close()


async def test_one_that_does_not_answer_is_given_up():
    parent = Parent(Program((sys.executable, "-c", "input()"), "/nowhere/"), answer_s=0.2)
    assert await parent.fork(["x", "-m", "x"], {}, [0, 1, 2]) is None
    assert parent.pid is None
    await parent.close()


async def test_it_ends_when_it_was_idle():
    root = str(Path(__file__).parents[2])
    parent = Parent(Program(PARENT, "/nowhere/", env={"PYTHONPATH": root}), idle_s=0.0)
    parent.enter()
    null = os.open(os.devnull, os.O_RDWR)
    worker = await parent.fork([*PARENT[:3], PARENT[-1]], {**os.environ}, [null] * 3)
    os.close(null)
    assert await asyncio.to_thread(worker.wait) == 1  # it misses its options
    pid = parent.pid
    assert is_alive(pid)
    parent.leave()
    await eventually(lambda: not psutil.pid_exists(pid))
    assert parent.pid is None
    await parent.close()


class RealEngine:
    """One whose package may not be installed."""

    package: str

    @pytest.fixture
    async def placement(self, run_dir):
        pytest.importorskip(self.package)
        placement = LocalPlacement(run_dir)
        yield placement
        await placement.close()
        assert not placement.parents


class TestLlamacpp(RealEngine):
    """It is quick to start: nobody waits for its parent."""

    package = "llama_cpp"

    async def test_workers_are_started_until_the_parent_is_ready_then_forked(
        self, launch, placement
    ):
        first = launch("llamacpp", **GGUF)
        await first.ready()
        said = await answer(first)
        parent = placement.parents["llamacpp"]
        assert not is_forked(first, parent)
        async with asyncio.timeout(60):
            while True:
                worker = launch("llamacpp", **GGUF)
                await worker.ready()
                if is_forked(worker, parent):
                    break
                await worker.stopped()
        shown = " ".join(psutil.Process(worker.handle.pid).cmdline()).split()
        assert worker.handle.endpoint.socket_path in shown[shown.index("--listen") + 1]
        assert shown[-1].endswith(".json")
        assert os.sched_getscheduler(worker.handle.pid) == os.sched_getscheduler(0)
        assert await answer(worker) == said
        await asyncio.gather(first.stopped(), worker.stopped())

    async def test_one_that_is_foreseen_is_there_for_the_first_worker(self, launch, placement):
        placement.foresee([LaunchSpec(model="m", engine="llamacpp")] * 2)
        parent = placement.parents["llamacpp"]
        ready = placement._parents["llamacpp"]._running
        await eventually(lambda: ready.is_ready)
        worker = launch("llamacpp", **GGUF)
        await worker.ready()
        assert is_forked(worker, parent)
        await worker.stopped()

    async def test_a_slow_engine_is_not_foreseen(self, placement):
        placement.foresee([LaunchSpec(model="m", engine="paged")])
        assert not placement.parents

    async def test_a_parent_that_cannot_import_is_not_made_again(self, run_dir, launch, placement):
        placement._find_parent = lambda _: (*PARENT[:-1], "no.such.engine")
        for _ in range(2):
            worker = launch("llamacpp", **GGUF)
            await worker.ready()
            await worker.stopped()
            await eventually(lambda: not placement.parents)


def is_forked(worker, parent: int) -> bool:
    """Whether its memory is laid out as the parent's, which chance gives to no program that is started."""
    layouts = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[45]
        for pid in (worker.handle.pid, parent)
    ]
    assert all(int(place) for place in layouts)
    return layouts[0] == layouts[1]


class TestPaged(RealEngine):
    """It takes seconds to import: the first worker waits for its parent."""

    package = "torch"

    async def test_only_the_parent_spends_time_on_imports(self, launch, placement):
        for _ in range(2):
            worker = launch("paged", **PAGED)
            facts = await worker.ready()
            assert "chat" in facts.capabilities
            [parent] = placement.parents.values()
            assert cpu_s(worker.handle.pid) < cpu_s(parent) / 2
            await worker.stopped()

    async def test_it_answers_as_a_started_one_does(self, launch, placement):
        forked, started = launch("paged", **PAGED), launch("paged", **PAGED, env={"SOME": "1"})
        await asyncio.gather(forked.ready(), started.ready())
        assert await answer(forked) == await answer(started)
        await asyncio.gather(forked.stopped(), started.stopped())

    async def test_why_it_cannot_load_is_told_and_logged(self, launch, placement, tmp_path):
        worker = launch("paged", options={"path": str(tmp_path)}, settings={"gpu_layers": 0})
        failure = await worker.gone()
        assert failure.kind in ("missing_file", "bad_file")
        assert any(failure.reason in line for line in worker.lines)


async def answer(worker) -> str:
    """What it says to a greedy question."""
    body = json.dumps({"prompt": "swapper is", "max_tokens": 16, "temperature": 0}).encode()
    reader, writer = await asyncio.open_unix_connection(worker.handle.endpoint.socket_path)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    head += "content-type: application/json\r\nconnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    reply = await reader.read()
    writer.close()
    assert reply.split()[1] == b"200", reply
    return json.loads(reply.partition(b"\r\n\r\n")[2])["choices"][0]["text"]
