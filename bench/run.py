"""`make bench`: all benchmarks that this machine can run, one after the other.

Each is a module of its own and can be run alone; its README says what its figures mean. ARGS of make
choose: `make bench ARGS="proxy policy"`. `llama-server`, the peer of the GGUF engine, is taken from the
PATH or from LLAMA_SERVER.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

BENCHMARKS = {
    "proxy": ("bench.proxy.overhead",),
    "cold-start": ("bench.gguf.cold_start",),
    "gguf": ("bench.gguf.throughput", "--llama-server"),
    "paged": ("bench.paged.cpu",),
    "policy": ("bench.policy",),
    "serve": ("bench.serve",),
    "swap": ("bench.swap",),
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; returns how many could not be run."""
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        print(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
        return 2
    server = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    failed = 0
    for name in names or BENCHMARKS:
        command = list(BENCHMARKS[name])
        if command[-1] == "--llama-server":
            if server is None:
                print(f"\n{name}: left out, for there is no llama-server to compare with")
                continue
            command.append(server)
        print(f"\n{name}: python -m {' '.join(command)}", flush=True)
        failed += subprocess.run([sys.executable, "-m", *command]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
