"""Which GPUs a worker is shown, and by what names it and we call them."""

from __future__ import annotations

import json
import sys

import pytest

from swapper.runtime.placement import LaunchSpec, WorkerFacts
from swapper.runtime.placement.local import LocalPlacement
from swapper.runtime.placement.visible import visible_gpus

from .conftest import Recorder, eventually, find_engine

UUIDS = {"cuda:0": "GPU-a", "cuda:1": "GPU-b", "cuda:2": ""}


@pytest.mark.parametrize(
    ("settings", "shown", "named"),
    [
        ({"devices": ["cuda:1"], "gpu_layers": 9}, "GPU-b", ["cuda:0"]),
        ({"devices": ["cuda:1", "cuda:0"]}, "GPU-b,GPU-a", ["cuda:0", "cuda:1"]),
        ({"gpu_layers": 0}, "", None),
        ({}, None, None),
        ({"devices": ["cuda:2"]}, None, ["cuda:2"]),  # the driver does not tell its UUID
        ({"devices": ["cuda:7"]}, None, ["cuda:7"]),
    ],
)
def test_a_worker_sees_what_was_chosen_and_nothing_else(settings, shown, named):
    gpus = visible_gpus(settings, UUIDS)
    assert gpus.environment.get("CUDA_VISIBLE_DEVICES") == shown
    assert gpus.settings(settings).get("devices") == named


def test_what_it_says_of_its_gpus_is_told_by_our_names():
    gpus = visible_gpus({"devices": ["cuda:1", "cuda:0"]}, UUIDS)
    facts = WorkerFacts({"host": 1, "cuda:0": 2, "cuda:1": 3}, context=64)
    assert gpus.facts(facts) == WorkerFacts({"host": 1, "cuda:1": 2, "cuda:0": 3}, context=64)
    assert visible_gpus({}, UUIDS).facts(facts) is facts


async def test_options_and_environment_of_a_real_worker(run_dir, tmp_path):
    placement = LocalPlacement(run_dir, find_engine=find_engine, gpus=UUIDS)
    worker, dump = Recorder(), tmp_path / "dump"
    spec = LaunchSpec("m", "contract", options={"dump": str(dump), "never_ready": True})
    placement.start(
        "m#1", spec, {"devices": ["cuda:1"]}, 30.0,
        on_progress=worker.on_progress, on_ready=worker.on_ready,
        on_exit=worker.on_exit, on_output=worker.lines.append,
    )  # fmt: skip
    try:
        [options] = await eventually(lambda: list(run_dir.rglob("*.json")))
        assert json.loads(options.read_text())["devices"] == ["cuda:0"]
        await eventually(lambda: dump.exists() and dump.read_text())
        assert "GPU-b" in dump.read_text()
    finally:
        await placement.close()


async def test_a_commands_own_environment_goes_first(run_dir):
    placement = LocalPlacement(run_dir, gpus=UUIDS)
    worker = Recorder()
    script = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    spec = LaunchSpec(
        "m", "command", cmd=(sys.executable, "-c", script), env={"CUDA_VISIBLE_DEVICES": "7"}
    )
    placement.start(
        "m#1", spec, {"devices": ["cuda:1"]}, 30.0,
        on_progress=worker.on_progress, on_ready=worker.on_ready,
        on_exit=worker.on_exit, on_output=worker.lines.append,
    )  # fmt: skip
    await worker.gone()
    assert worker.lines == ["7"]
    await placement.close()
