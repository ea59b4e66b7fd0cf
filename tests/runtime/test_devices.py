"""Readings of memory and cores: of this machine, of a pretended driver, of pretended control groups."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from swapper.runtime import cgroup, devices
from swapper.runtime.devices import HOST, Devices, Held

from .conftest import HERE
from .fake_driver import build

MIB = 1 << 20
MAP_A_FILE = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
held = bytearray(b"x") * (40 << 20)
sum(pages[:: 4096])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def mapper(tmp_path):
    """A process that holds 40 MiB of its own and has mapped a file of 80 MiB."""
    (tmp_path / "model").write_bytes(b"m" * (80 * MIB))
    process = subprocess.Popen(
        [sys.executable, "-c", MAP_A_FILE, str(tmp_path / "model")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    yield process
    process.communicate()


def test_the_host_has_memory():
    reading = devices.host_reading()
    assert 0 < reading.free < reading.total <= psutil.virtual_memory().total


def test_a_mapped_file_counts_as_held_and_not_as_free(mapper):
    held = devices.host_memory_of([mapper.pid])
    assert 120 * MIB < held.total < 200 * MIB
    assert 80 * MIB <= held.mapped < 110 * MIB
    plain, less = devices.host_reading(), devices.host_reading(Held(0, 10**15))
    assert less.free == 0 < plain.free


def test_processes_that_are_gone_hold_nothing(mapper):
    mapper.communicate()
    assert devices.host_memory_of([mapper.pid]) == Held()


async def test_a_survey_tells_each_workers_footprint(mapper):
    shell = subprocess.Popen(  # noqa: ASYNC220 - returns at once
        ["sh", "-c", "sleep 1000 & echo; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    shell.stdout.readline()
    try:
        survey = await Devices(lambda: {"a#1": mapper.pid, "b#1": shell.pid}).survey()
    finally:
        os.killpg(shell.pid, 9)
        shell.communicate()
    assert survey.footprints["a#1"][HOST] > 120 * MIB
    assert 0 < survey.footprints["b#1"][HOST] < 20 * MIB
    assert survey.readings[HOST].ours == sum(f[HOST] for f in survey.footprints.values())


async def test_surveys_are_shared_and_kept_for_a_moment():
    asked = []
    here = Devices(lambda: asked.append(1) or {})
    first, second = await asyncio.gather(here.survey(), here.survey())
    assert first is second is await here.survey(max_age_s=1000)
    assert len(asked) == 1
    assert await here.survey(max_age_s=-1) is not first


def test_cores_are_bounded_by_affinity():
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    script += "from swapper.runtime.devices import cpu_count; print(cpu_count())"
    assert python(script) == 1
    assert devices.cpu_count() >= 1
    assert cgroup.whole_cores(8, 1.5) == 2
    assert cgroup.whole_cores(2, 0.1) == 1
    assert cgroup.whole_cores(2, None) == 2


# ---------------------------------------------------------------- control groups


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes files of control groups: groups(membership, {path: text})."""

    def write(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "root")
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "membership")
    return write


def test_version_2_limits_of_all_groups_above_count(groups):
    groups(
        "0::/service/swapper\n",
        {
            "cgroup.controllers": "",
            "service/memory.max": "1000\n",
            "service/memory.current": "700\n",
            "service/memory.stat": "anon 1\nactive_file 100\ninactive_file 50\n",
            "service/cpu.max": "150000 100000\n",
            "service/swapper/memory.max": "max\n",
            "service/swapper/memory.current": "600\n",
            "service/swapper/cpu.max": "max 100000\n",
            "service/swapper/memory.events": "oom 3\noom_kill 2\n",
        },
    )
    assert cgroup.memory_limit() == cgroup.MemoryLimit(total=1000, free=450)
    assert cgroup.cpu_quota() == 1.5
    assert cgroup.oom_kills() >= 2
    assert devices.host_reading().total == 1000


def test_version_1(groups):
    groups(
        "5:cpu,cpuacct:/box\n4:memory:/box\n0::/\n",
        {
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/memory.usage_in_bytes": "1\n",
            "memory/box/memory.limit_in_bytes": "2000\n",
            "memory/box/memory.usage_in_bytes": "1500\n",
            "memory/box/memory.stat": "total_active_file 200\ntotal_inactive_file 300\n",
            "memory/box/memory.oom_control": "under_oom 0\noom_kill 1\n",
            "cpu/box/cpu.cfs_quota_us": "-1\n",
            "cpu/box/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cgroup.memory_limit() == cgroup.MemoryLimit(total=2000, free=1000)
    assert cgroup.cpu_quota() is None


def test_a_machine_without_control_groups(groups):
    groups("", {})
    assert cgroup.memory_limit() is None
    assert cgroup.cpu_quota() is None


# ---------------------------------------------------------------- GPUs


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory):
    """A folder with a library like NVIDIA's in it."""
    return build(tmp_path_factory.mktemp("driver")).parent


def python(script: str, **environment: str | Path):
    """The last line that the script prints, run by itself, as JSON."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CUDA")}
    clean |= {"PYTHONPATH": str(HERE.parents[1])} | {n: str(v) for n, v in environment.items()}
    script = textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean, check=True, capture_output=True
    )
    return json.loads(done.stdout.splitlines()[-1])


SURVEY = """
import dataclasses, json, os
os.environ["FAKE_PID"] = str(os.getpid())
from swapper.runtime.devices import survey
print(json.dumps(dataclasses.asdict(survey({"a#1": os.getpid()}))))
"""


def test_gpus_with_what_is_free_and_what_is_ours(fake_driver):
    seen = python(SURVEY, LD_LIBRARY_PATH=fake_driver, FAKE_FREE_MIB="600")
    assert seen["readings"]["cuda:0"] == {"total": 1000 * MIB, "free": 600 * MIB, "ours": 300 * MIB}
    assert seen["readings"]["cuda:1"] == {"total": 1000 * MIB, "free": 600 * MIB, "ours": 0}
    assert seen["footprints"]["a#1"]["cuda:0"] == 300 * MIB
    assert "cuda:1" not in seen["footprints"]["a#1"]
    assert [gpu["uuid"] for gpu in seen["gpus"]] == ["GPU-aaaa", "GPU-bbbb"]
    assert seen["gpus"][0]["product"] == "Fake 1000"


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("1,0", ["GPU-bbbb", "GPU-aaaa"]),
        ("GPU-b", ["GPU-bbbb"]),
        ("0,7,1", ["GPU-aaaa"]),
        ("GPU-", []),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_are_numbered_as_programs_see_them(fake_driver, visible, uuids):
    script = """
    import json
    from swapper.runtime.nvidia import read_gpus
    print(json.dumps([(gpu.name, gpu.uuid) for gpu in read_gpus()]))
    """
    seen = python(script, LD_LIBRARY_PATH=fake_driver, CUDA_VISIBLE_DEVICES=visible)
    assert seen == [[f"cuda:{n}", uuid] for n, uuid in enumerate(uuids)]


def test_who_holds_what_may_be_written_in_a_file(fake_driver, tmp_path):
    script = """
    import json, os
    from swapper.runtime.devices import survey_gpus
    held = open(os.environ["FAKE_HELD"], "w")
    print(f"0 {os.getpid()} 100\\n0 0 50\\n1 1 900\\n0 2 25", file=held, flush=True)
    seen = survey_gpus({"a#1": os.getpid()})
    print(json.dumps([[r.free >> 20, r.ours >> 20] for r in seen.values()]))
    """
    seen = python(script, LD_LIBRARY_PATH=fake_driver, FAKE_HELD=tmp_path / "held")
    assert seen == [[825, 100], [100, 0]]


def test_no_driver_means_no_gpus(tmp_path):
    script = """
    import json
    from swapper.runtime.nvidia import read_gpus
    print(json.dumps([len(read_gpus()), len(read_gpus())]))
    """
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    assert python(script, LD_LIBRARY_PATH=tmp_path) == [0, 0]
