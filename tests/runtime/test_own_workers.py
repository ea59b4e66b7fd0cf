"""Workers that keep the contract: what they report, and all the ways in which they end."""

import asyncio
import json
import os
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest

from swapper.core.events import Failure
from swapper.runtime.placement import LaunchSpec, WorkerFacts

from .conftest import eventually, is_alive, number_in, open_descriptors


async def test_the_echo_worker_comes_answers_and_goes(launch):
    worker = launch("echo", options={"context": 512}, settings={"threads": 1})
    facts = await worker.ready()
    assert facts.context == 512
    assert facts.memory["host"] > 1_000_000
    assert "chat" in facts.capabilities
    path = Path(worker.handle.endpoint.socket_path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()
    await worker.stopped()
    assert not path.exists()  # noqa: ASYNC240 - it takes no time


async def test_progress_comes_before_ready_and_never_falls(launch):
    worker = launch("contract", options={"progress": [0, 0.5, 0.2, 7, "x"]})
    facts = await worker.ready()
    await worker.stopped()
    assert worker.told == [0.0, 0.5, 1.0, facts, ("exit", None)]
    assert facts == WorkerFacts({"host": 4096}, 64, ("chat",))


async def test_options_are_handed_over_in_private_and_then_removed(launch, tmp_path, run_dir):
    dump = tmp_path / "dump"
    worker = launch(
        "contract",
        model="a/model name",
        options={"dump": str(dump), "threads": 1, "never_ready": True},
        settings={"threads": 2},
        env={"EXTRA": "1"},
    )
    seen = await eventually(lambda: dump.exists() and dump.read_text())
    [file] = run_dir.glob("*/*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(os.fsencode(file.with_suffix(".sock"))) < 108
    seen = json.loads(seen)
    assert seen["options"]["threads"] == 2
    assert seen["options"]["model"] == "a/model name"
    report = int(seen["env"]["SWAPPER_REPORT_FD"])
    assert {0, 1, 2, report} <= set(seen["fds"])
    assert len(seen["fds"]) <= 5  # and the folder that is being listed
    assert seen["env"]["EXTRA"] == "1"
    assert seen["core"] == 0
    assert seen["oom"] == "500"
    await worker.stopped()
    assert not list(run_dir.glob("*/*.*"))


async def test_a_reported_failure_is_what_is_told(launch):
    fail = {"kind": "bad_file", "reason": "model.gguf is truncated"}
    worker = launch("contract", options={"fail": fail})
    assert await worker.gone() == Failure("bad_file", "model.gguf is truncated")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"exit": 3, "say": ["reading", "this is bad"]}, "crashed"),
        ({"exit": 1, "say": ["cudaMalloc failed: out of memory"]}, "out_of_memory"),
        ({"exit": 0}, "crashed"),
    ],
)
async def test_an_unreported_failure_is_classified(launch, options, kind):
    worker = launch("contract", options=options)
    assert (await worker.gone()).kind == kind
    assert worker.lines == options.get("say", [])


async def test_one_that_never_becomes_ready_is_ended_with_its_children(launch, tmp_path):
    worker = launch(
        "contract",
        load_timeout_s=1.5,
        options={"never_ready": True, "ignore_term": True, "fork": str(tmp_path / "pid")},
    )
    failure = await worker.gone()
    assert failure.kind == "load_timeout"
    assert "1.5 s" in failure.reason
    if (tmp_path / "pid").exists():  # it got that far in its time
        await eventually(lambda: not is_alive(number_in(tmp_path / "pid")))


async def test_one_that_ignores_term_is_killed_after_its_grace(launch):
    worker = launch("contract", options={"ignore_term": True})
    await worker.ready()
    begun = time.monotonic()
    await worker.stopped(0.3)
    assert time.monotonic() - begun >= 0.3
    assert not is_alive(worker.handle.pid)


async def test_a_worker_that_crashes_while_it_serves(launch):
    worker = launch("contract")
    await worker.ready()
    os.kill(worker.handle.pid, 11)
    failure = await worker.gone()
    assert failure.kind == "crashed"
    assert "while it served" in failure.reason


async def test_stopping_before_it_was_spawned(launch):
    worker = launch("contract")
    await worker.stopped()
    assert worker.handle.pid is None
    assert worker.told == [("exit", None)]


async def test_stopping_while_it_loads_means_no_ready(launch):
    worker = launch("contract", options={"never_ready": True})
    await eventually(lambda: worker.handle.pid)
    await worker.stopped(0.2)
    assert worker.told == [("exit", None)]


async def test_an_engine_that_does_not_exist(launch):
    assert (await launch("no_such_engine").gone()).kind == "unsupported"
    assert (await launch("../../etc").gone()).kind == "unsupported"


async def test_a_flood_of_output_stops_nothing(launch):
    flooding = launch("contract", options={"flood": 30_000_000})
    quiet = launch("contract")
    await quiet.ready()
    longest = 0.0
    while not any(isinstance(x, WorkerFacts) for x in flooding.told):
        begun = time.monotonic()
        await asyncio.sleep(0)
        longest = max(longest, time.monotonic() - begun)
    await flooding.stopped()
    assert len(flooding.lines) == 30_000_000 // 64
    assert longest < 1.0  # a chunk of output is read in a millisecond or two
    await quiet.stopped()


async def test_a_worker_slow_to_stop_holds_nobody_up(launch):
    slow = launch("contract", options={"stop_s": 4})
    await slow.ready()
    begun = time.monotonic()
    slow.handle.stop(30)
    other = launch("contract")
    await other.ready()
    await other.stopped()
    assert slow.told[-1] != ("exit", None)
    assert await slow.gone() is None
    assert time.monotonic() - begun >= 4


async def test_many_at_once_leave_nothing_behind(launch, placement, run_dir):
    before = open_descriptors()
    workers = [launch("contract", model=f"model{n}") for n in range(12)]
    await asyncio.gather(*(worker.ready() for worker in workers))
    pids = [worker.handle.pid for worker in workers]
    assert len(set(pids)) == 12
    await asyncio.gather(*(worker.stopped() for worker in workers))
    assert not any(map(psutil.pid_exists, pids))
    assert not list(run_dir.glob("*/*"))
    assert open_descriptors() == before


async def test_closing_the_placement_ends_all_at_once(launch, placement, run_dir):
    workers = [
        launch("contract", options={"stop_s": 1000}),
        launch("command", cmd=("sleep", "1000")),
        launch("url", url="http://somewhere:1"),
        launch("contract"),
    ]
    await asyncio.gather(workers[0].ready(), workers[2].ready())
    await placement.close()
    for worker in workers:
        assert worker.told[-1] == ("exit", None)
    assert not list(run_dir.iterdir())


async def test_a_server_elsewhere_is_ready_at_once(launch):
    worker = launch("url", url="https://other-box/api/v1", api_key="k", upstream_model="m")
    assert await worker.ready() == WorkerFacts()
    endpoint = worker.handle.endpoint
    assert (endpoint.host, endpoint.port, endpoint.tls) == ("other-box", 443, True)
    assert endpoint.prefix == "/api"
    assert worker.handle.pid is None
    await worker.stopped()


@pytest.mark.parametrize("url", [None, "other-box:8080", "http://", "ftp://x", "http://x:99999"])
async def test_a_server_elsewhere_needs_an_address(launch, url):
    assert (await launch("url", url=url).gone()).kind == "bad_options"


def test_the_specification_needs_no_more_than_its_engine():
    assert LaunchSpec("m", "echo").ready == "/health"
    assert sys.version_info >= (3, 11)
