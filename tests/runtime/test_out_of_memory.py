"""The kernel's own out-of-memory killer, in a control group small enough to meet it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swapper.runtime import cgroup

from .conftest import HERE

LIMIT_BYTES = 150 << 20
PROXY = """
import asyncio, json, sys
from pathlib import Path
from swapper.runtime.devices import host_reading
from swapper.runtime.placement import LaunchSpec
from swapper.runtime.placement.local import LocalPlacement

async def main():
    placement = LocalPlacement(Path(sys.argv[1]))
    exited = asyncio.get_running_loop().create_future()
    greedy = "held = [bytearray(b'x') * (8 << 20) for _ in range(200)]"
    placement.start(
        "m#1", LaunchSpec("m", "command", cmd=(sys.executable, "-c", greedy)), {}, 60.0,
        on_progress=print, on_ready=print, on_exit=exited.set_result, on_output=print)
    failure = await exited
    await placement.close()
    print(json.dumps([failure.kind, failure.reason, host_reading().total]))

asyncio.run(main())
"""


@pytest.fixture
def small_group():
    """The file to write a process number to that is to have little memory."""
    limits = ("memory.limit_in_bytes", "memory.max")
    for folder in cgroup._folders("memory"):
        group = folder / f"swapper-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            [limit] = [group / name for name in limits if (group / name).exists()]
            limit.write_text(str(LIMIT_BYTES))
            yield group / "cgroup.procs"
            return
        except (ValueError, OSError):
            continue
        finally:
            group.rmdir()
    pytest.skip("needs to be allowed to make a control group with a memory limit")


def test_a_worker_that_the_kernel_kills_for_its_memory(small_group, run_dir):
    enter: Path = small_group
    script = f"open({str(enter)!r}, 'w').write('0')\n{PROXY}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(run_dir)],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        stdout=subprocess.PIPE,
        check=True,
    )
    kind, reason, total = json.loads(done.stdout.splitlines()[-1])
    assert kind == "out_of_memory"
    assert "the kernel killed the worker" in reason
    assert total == LIMIT_BYTES
