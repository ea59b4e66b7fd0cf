"""Starts `swapper serve` with many models configured and looks at it: `python -m bench.serve`.

Prints one JSON object: seconds from the start of the process until a connection is taken and until
`GET /health` is answered on it (the best and the median of several starts), and, of one that is left alone, resident and proportional memory and the share
of a core it uses.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from swapper.config import DEMO_FOLDER

PATIENCE_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--idle-s", type=float, default=60.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(configuration(asked.models))
        starts = [time_to_serve(config, folder) for _ in range(asked.starts)]
        listens, answers, of_a_processor = zip(*starts, strict=True)
        figures = {
            "models": asked.models,
            "listens_s": summary(listens),
            "answers_s": summary(answers),
            "answers_cpu_s": summary(of_a_processor),
            "idle": idle(config, folder, asked.idle_s),
        }
    print(json.dumps(figures, indent=2))


def configuration(num_models: int) -> str:
    """Every one of them a GGUF that is there, so that each header is worth reading."""
    path = next(DEMO_FOLDER.glob("*.gguf"))
    models = "".join(f"  m{i}: {{engine: llamacpp, path: '{path}'}}\n" for i in range(num_models))
    return f"models:\n{models}"


def start(config: Path, folder: str) -> tuple[subprocess.Popen[bytes], int]:
    """A server on a free port, not yet listening."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "swapper", "serve", "--config", str(config)]
    env = {**os.environ, "XDG_STATE_HOME": folder, "XDG_RUNTIME_DIR": ""}
    out = subprocess.DEVNULL
    process = subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{port}"], env=env, stdout=out, stderr=out
    )
    return process, port


def summary(seconds: Iterable[float]) -> dict[str, float]:
    """The best and the median, rounded."""
    all_of_them = sorted(seconds)
    return {
        "best": round(all_of_them[0], 3),
        "median": round(statistics.median(all_of_them), 3),
    }


def time_to_serve(config: Path, folder: str) -> tuple[float, float, float]:
    """Seconds until the first connection is taken, until the first answer on it, and of a processor until
    then, which is what it is without neighbours."""
    began = time.perf_counter()
    process, port = start(config, folder)
    try:
        with first_connection(process, port) as client:
            listens_s = time.perf_counter() - began
            client.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answer = client.recv(4096)
        answers_s = time.perf_counter() - began
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"it answered {answer!r}")
        used = psutil.Process(process.pid).cpu_times()
        return listens_s, answers_s, used.user + used.system
    finally:
        process.terminate()
        process.wait()


def first_connection(process: subprocess.Popen[bytes], port: int) -> socket.socket:
    """As soon as it listens; raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        except OSError:
            time.sleep(0.002)
    raise TimeoutError("it did not listen")


def idle(config: Path, folder: str, for_s: float) -> dict[str, float]:
    """Of a server that nobody asks anything, once it has settled."""
    process, port = start(config, folder)
    try:
        first_connection(process, port).close()
        time.sleep(3)
        seen = psutil.Process(process.pid)
        before = seen.cpu_times()
        time.sleep(for_s)
        after = seen.cpu_times()
        memory = seen.memory_full_info()
        used_s = after.user + after.system - before.user - before.system
        return {
            "seconds": for_s,
            "cpu_percent": round(100 * max(0.0, used_s) / for_s, 3),
            "resident_mb": round(memory.rss / 1e6, 1),
            "proportional_mb": round(memory.pss / 1e6, 1),
        }
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
