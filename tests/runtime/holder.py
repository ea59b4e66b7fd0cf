"""A proxy's stand-in that is to be killed: holds a placement with workers, prints a JSON line.

    holder.py FOLDER RUN_DIR [uvloop]

Workers: a command with a daemonised grandchild and a stop command, one that ignores TERM, an own
worker that keeps the contract, and one that hangs (it does not watch its standard input); two such
that were forked by a parent.
"""

import asyncio
import json
import sys
from pathlib import Path

from swapper.runtime.placement import LaunchSpec
from swapper.runtime.placement.local import LocalPlacement

HERE = Path(__file__).parent
COMMAND = (sys.executable, str(HERE / "command_worker.py"), "${port}")
HANGING = """
import os, time
os.write(int(os.environ["SWAPPER_REPORT_FD"]), b'{"event": "ready"}\\n')
time.sleep(1000)
"""
ENGINES = {
    "contract": (sys.executable, str(HERE / "contract_worker.py")),
    "hanging": (sys.executable, "-c", HANGING),
    "forked": (sys.executable, "-m", "tests.runtime.forkable"),
}
PARENT = (sys.executable, "-m", "backends.serving.parent", "tests.runtime.forkable")


def specs(folder: Path) -> list[LaunchSpec]:
    stop = ("sh", "-c", f"echo ${{pid}} > {folder / 'stopped'}")
    return [
        LaunchSpec(
            "daemon", "command", cmd=(*COMMAND, "--daemon", str(folder / "daemon")), stop_cmd=stop
        ),
        LaunchSpec("stubborn", "command", cmd=(*COMMAND, "--ignore-term")),
        LaunchSpec("contract", "contract"),
        LaunchSpec("hanging", "hanging"),
        LaunchSpec("forked", "forked"),
        LaunchSpec("forked and hanging", "forked", options={"hang": True}),
    ]


async def main(folder: Path, run_dir: Path) -> None:
    placement = LocalPlacement(run_dir, find_engine=ENGINES.get, find_parent={"forked": PARENT}.get)
    handles = [await started(placement, spec) for spec in specs(folder)]
    print(json.dumps([handle.pid for handle in handles]), flush=True)
    await asyncio.Event().wait()


async def started(placement: LocalPlacement, spec: LaunchSpec):
    outcome = asyncio.get_running_loop().create_future()
    handle = placement.start(
        spec.model,
        spec,
        {},
        30.0,
        on_progress=lambda _: None,
        on_ready=outcome.set_result,
        on_exit=lambda failure: outcome.done() or outcome.set_exception(RuntimeError(failure)),
        on_output=lambda line: print(line, file=sys.stderr),
    )
    await outcome
    return handle


factory = None
if "uvloop" in sys.argv:
    import uvloop

    factory = uvloop.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
