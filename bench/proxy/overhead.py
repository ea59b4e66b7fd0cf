"""Measures what swapper adds between a client and a worker: time, and CPU of its process.

    python -m bench.proxy.overhead [--rounds 5] [--label NAME]

Drives the real `swapper serve`. Rounds straight to the worker and rounds through swapper alternate,
so that a busy neighbour meets both. README.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"
SETTINGS = {
    "one": ["requests", "--connections", "1", "--count", "3000"],
    "many": ["requests", "--connections", "32", "--count", "16000"],
    "streams": ["streams", "--connections", "64", "--events", "250", "--interval-s", "0.02"],
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def worker() -> Iterator[int]:
    """The worker's port."""
    port = free_port()
    with running([sys.executable, "-m", "bench.proxy.worker", str(port)]):
        until_open(port)
        yield port


@contextlib.contextmanager
def swapper(worker_port: int, command: str) -> Iterator[tuple[int, int]]:
    """swapper's port and process, the worker configured as its only model."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        model = {"engine": "url", "url": f"http://127.0.0.1:{worker_port}", "parallel": 256}
        config.write_text(json.dumps({"listen": f"127.0.0.1:{port}", "models": {"bench": model}}))
        argv = [*shlex.split(command), "--config", str(config)]
        environment = {**os.environ, "XDG_STATE_HOME": folder, "XDG_RUNTIME_DIR": folder}
        with running(argv, environment) as process:
            until_open(port)
            yield port, process.pid


@contextlib.contextmanager
def running(
    argv: list[str], environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block. Its log goes nowhere, as fast as the system takes it."""
    process = subprocess.Popen(
        argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def until_open(port: int) -> None:
    """Return once the port accepts."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond where the kernel counts them."""
    return (
        sum(
            int(path.read_text().split()[0])
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
        )
        / 1e9
    )


def load(kind: str, port: int) -> dict[str, object]:
    """One round of the load generator."""
    kind_of_load, *options = SETTINGS[kind]
    argv = [sys.executable, "-m", "bench.proxy.load", kind_of_load, str(port), *options]
    done = subprocess.run(argv, check=True, capture_output=True, timeout=300)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def measure(rounds: int, command: str) -> dict[str, list[dict[str, object]]]:
    """All rounds, straight and through."""
    found: dict[str, list[dict[str, object]]] = {kind: [] for kind in SETTINGS}
    with worker() as worker_port, swapper(worker_port, command) as (port, pid):
        warm_up(port)
        for number in range(rounds):
            for kind, results in found.items():
                straight = load(kind, worker_port)
                before = cpu_s(pid)
                through = load(kind, port)
                through["cpu_us_each"] = (cpu_s(pid) - before) / int(str(through["count"])) * 1e6
                results.append({"straight": straight, "through": through, "load": os.getloadavg()})
                print(
                    f"round {number + 1} {kind}: {through['cpu_us_each']:.1f} us each", flush=True
                )
    return found


def warm_up(port: int) -> None:
    """The first request starts the model; the next ones warm the caches."""
    for _ in range(200):
        body = json.dumps({"model": "bench"}).encode()
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        urllib.request.urlopen(urllib.request.Request(url, body)).read()


def summary(found: dict[str, list[dict[str, object]]]) -> dict[str, dict[str, float]]:
    """For each kind: medians over the rounds; of CPU the least too, which neighbours disturb least."""
    out: dict[str, dict[str, float]] = {}
    for kind, results in found.items():
        cpu = [result["through"]["cpu_us_each"] for result in results]  # type: ignore[index]
        out[kind] = {"cpu_us_median": median(cpu), "cpu_us_least": round(min(cpu), 1)}
        for way in ("straight", "through"):
            for part in ("p50", "p99"):
                times = [result[way]["times_ms"][part] for result in results]  # type: ignore[index]
                out[kind][f"{way}_{part}_ms"] = median(times)
            rates = [r[way]["count"] / r[way]["took_s"] for r in results]  # type: ignore[index]
            out[kind][f"{way}_per_s"] = round(statistics.median(rates))
        added = [
            r["through"]["times_ms"]["p50"] - r["straight"]["times_ms"]["p50"]  # type: ignore[index]
            for r in results
        ]
        out[kind]["added_p50_ms"] = median(added)
    return out


def median(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def machine() -> dict[str, object]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": cpu.split(":")[-1].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("aiohttp", "uvloop", "msgspec", "structlog")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--label", default="overhead")
    parser.add_argument("--serve", default=f"{sys.executable} -m swapper.cli serve")
    args = parser.parse_args()
    found = measure(args.rounds, args.serve)
    result = {
        "command": shlex.join(["python", "-m", "bench.proxy.overhead", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "settings": SETTINGS,
        "summary": summary(found),
        "rounds": found,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"proxy-{args.label}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
