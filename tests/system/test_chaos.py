"""Everything at once: workers die, hang and do not listen, clients go, the configuration changes.

`SWAPPER_CHAOS_S=120` is the long form, `SWAPPER_CHAOS_SEED` another course of events. Where it fails, it
prints both, and what happened.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import statistics
import sys
import tempfile
import time

import aiohttp
import httpx
import psutil
import pytest

from tests.system.chaos import MODELS, Chaos, ailments, configuration, plan
from tests.system.conftest import PATIENCE_S, all_gone, eventually

DURATION_S = float(os.environ.get("SWAPPER_CHAOS_S", "20"))
SEED = int(os.environ.get("SWAPPER_CHAOS_SEED", "1"))
MIB = 1 << 20
LONGEST_BACK_OFF_S = 65.0
MARK = "SWAPPER_WORKER"


@pytest.fixture
def runtime_dir():
    """Of this server alone, so that its workers are known by their mark; short, for their sockets."""
    folder = tempfile.mkdtemp(prefix="swapper-chaos-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def swapper(serve, runtime_dir, tmp_path):
    swapper = serve(configuration(sys.executable), XDG_RUNTIME_DIR=runtime_dir)
    file = tmp_path / "config.yaml"
    swapper.write = lambda ailing: file.write_text(configuration(sys.executable, ailing))
    return swapper


@pytest.mark.timeout(DURATION_S + 240)
async def test_whatever_happens_everybody_is_answered_and_nothing_is_left_over(
    swapper, runtime_dir
):
    steps = plan(SEED, DURATION_S)
    chaos, sizes = None, []
    try:
        serve_all(swapper)
        unload_all(swapper)
        files_before = eventually(lambda: settled_files(swapper))
        swapper.write(ailments(SEED))
        reload(swapper)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            chaos = Chaos(swapper, session, swapper.write)
            weighing = asyncio.create_task(weigh(swapper, sizes))
            await chaos.run(steps)
            weighing.cancel()
        assert chaos.violations == []
        assert chaos.num_whole > len(steps) / 8, "hardly anybody was served"
        assert swapper.dead() is None
        assert inner_failures(swapper) == []
        books_balance(swapper)

        swapper.write({})
        reload(swapper)
        serve_all(swapper)
        books_balance(swapper)
        idle_workers_go(swapper)
        assert marked(runtime_dir) == []
        eventually(lambda: (n := settled_files(swapper)) and n <= files_before)
        memory_is_flat(sizes)
        family = swapper.descendants()
        assert swapper.stop() == 0
        assert all_gone(family)
        assert inner_failures(swapper) == []
    finally:  # pytest shows it when it failed, or when it is asked to (-rP)
        print(f"SWAPPER_CHAOS_SEED={SEED} SWAPPER_CHAOS_S={DURATION_S:g}")
        if chaos is not None:
            print("\n".join([*chaos.history, "", *chaos.violations]))
        print("sizes in MiB:", [size // MIB for size in sizes])


def reload(swapper):
    answer = httpx.post(f"{swapper.url}/swapper/v1/reload", timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text


def serve_all(swapper):
    """Every model answers, for clients who come again when they were told to."""
    for model in MODELS:
        deadline = time.monotonic() + LONGEST_BACK_OFF_S
        while (answer := swapper.chat(model)).status_code == 503 and time.monotonic() < deadline:
            time.sleep(min(int(answer.headers["retry-after"]), LONGEST_BACK_OFF_S))
        assert answer.status_code == 200, f"{model}: {answer.text}"


def unload_all(swapper):
    for model in MODELS:
        url = f"{swapper.url}/swapper/v1/models/{model}/unload"
        assert httpx.post(url, timeout=PATIENCE_S).status_code == 200
    eventually(lambda: not swapper.descendants())


async def weigh(swapper, sizes):
    """The proxy's memory, again and again."""
    process = psutil.Process(swapper.process.pid)
    while True:
        sizes.append(process.memory_info().rss)
        await asyncio.sleep(0.5)


def settled_files(swapper):
    """How many descriptors the proxy has, once it stays at that for a moment."""
    process = psutil.Process(swapper.process.pid)
    counts = set()
    for _ in range(5):
        counts.add(process.num_fds())
        time.sleep(0.05)
    return counts.pop() if len(counts) == 1 else None


def memory_is_flat(sizes):
    """From the second quarter to the last: the first fills caches and pools."""
    quarter = len(sizes) // 4
    early = statistics.median(sizes[quarter : 2 * quarter])
    late = statistics.median(sizes[-quarter:])
    assert late - early < 8 * MIB
    assert max(sizes) - sizes[0] < 64 * MIB


def books_balance(swapper):
    """Nobody in flight, nobody waiting, by every count there is; awake are no more than may be."""

    def balance():
        running = swapper.get("/running").json()["running"]
        samples = re.findall(
            r"^swapper_(?:requests_active|in_flight|waiting)\S* (\S+)$",
            swapper.get("/metrics").text, re.MULTILINE,
        )  # fmt: skip
        counts = [entry[key] for entry in running for key in ("in_flight", "waiting")]
        return not any([*counts, *map(float, samples)])

    eventually(balance)
    running = swapper.get("/running").json()["running"]
    assert len([worker for worker in running if worker["state"] != "sleeping"]) <= 2


def idle_workers_go(swapper):
    """By their ttl, or by hand where they have none; no process is left."""
    has_ttl = {"quick", "moody", "foreign"}
    eventually(lambda: not has_ttl & swapper.workers().keys())
    unload_all(swapper)
    assert swapper.get("/running").json()["running"] == []


def marked(folder):
    """Processes of workers anywhere on the machine, by their mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(folder):
                found.append(process.cmdline())
        except (psutil.Error, OSError):
            pass  # not ours, or gone
    return found


def inner_failures(swapper):
    """Lines of the log that tell of a fault of swapper's own."""
    words = ("Traceback", "a request failed inside", "Exception in callback", "never retrieved")
    return [line for line in swapper.output().splitlines() if any(w in line for w in words)]
