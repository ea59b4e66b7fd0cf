"""Whatever ends the proxy, its workers end, and what it left is cleaned by the next one."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time

import psutil
import pytest

from swapper.runtime.placement.local import LocalPlacement
from swapper.runtime.process_group import MARK, sweep

from .conftest import HERE, eventually, is_alive, number_in

WITHIN_S = 2.0


@pytest.fixture(params=["asyncio", "uvloop"])
def holder(request, tmp_path, run_dir):
    """A process that holds a placement, and all processes that descend from it."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "holder.py"), str(tmp_path), str(run_dir), request.param],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    try:
        json.loads(process.stdout.readline())
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def marked_process(mark):
    return subprocess.Popen(["sleep", "1000"], env={**os.environ, MARK: mark})


async def test_workers_are_gone_soon_after_the_proxy_is_killed(holder, tmp_path):
    pids = [child.pid for child in psutil.Process(holder.pid).children(recursive=True)]
    daemon = number_in(tmp_path / "daemon")
    assert daemon in pids
    assert (
        len(pids) >= 10
    )  # two guards with a command each, the daemon, four workers of ours, a parent
    begun = time.monotonic()
    holder.kill()
    await eventually(lambda: not any(map(is_alive, pids)))
    assert time.monotonic() - begun < WITHIN_S
    assert number_in(tmp_path / "stopped") in pids  # the stop command had its turn


async def test_workers_are_gone_when_the_proxy_is_told_to_end(holder):
    pids = [child.pid for child in psutil.Process(holder.pid).children(recursive=True)]
    holder.send_signal(signal.SIGTERM)
    await eventually(lambda: not any(map(is_alive, pids)))


async def test_forked_workers_are_children_of_the_proxy_and_look_like_started_ones(holder, run_dir):
    [folder] = run_dir.iterdir()
    children = psutil.Process(holder.pid).children()
    forked = [c for c in children if "tests.runtime.forkable" in c.cmdline()[1:3]]
    marks = sorted(child.environ()[MARK] for child in forked)
    assert marks == [f"{folder}/forked and hanging/", f"{folder}/forked/"]
    assert all(os.getsid(child.pid) == child.pid for child in forked)


async def test_the_next_proxy_removes_what_the_last_one_left(holder, run_dir):
    left = list(run_dir.iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in left] == [0o700]
    assert any(path.suffix == ".sock" for path in left[0].iterdir())
    beside = LocalPlacement(run_dir)  # another proxy of the same user, meanwhile
    assert left[0].is_dir()
    holder.kill()
    holder.wait()
    orphan = marked_process(f"{left[0]}/x#1/")  # as if a guard had been killed as well
    placement = LocalPlacement(run_dir)
    assert orphan.wait(10) == -signal.SIGKILL
    assert not left[0].exists()
    assert len(list(run_dir.iterdir())) == 2
    await asyncio.gather(placement.close(), beside.close())
    assert not list(run_dir.iterdir())


def test_sweeping_kills_what_is_marked_and_nothing_else():
    mark = f"/nowhere/{os.getpid()}/a#1"
    marked, other = marked_process(f"{mark}/"), marked_process(f"{mark}0/")
    try:
        deadline = time.monotonic() + 20
        while sweep(f"{mark}/") == 0:
            assert time.monotonic() < deadline
        assert marked.wait(10) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (marked, other):
            process.kill()
            process.wait()
