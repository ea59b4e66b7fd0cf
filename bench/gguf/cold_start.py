"""How long the GGUF worker takes from nothing to its first token.

    python -m bench.gguf.cold_start [--rounds 11] [--label NAME]

`ready`: from starting the process to the ready report. `first token`: from starting the process to the
first chunk of an answer that was asked for the moment it was ready. The file is in the page cache.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.gguf import machine
from bench.gguf.model import make

ROOT = Path(__file__).parents[2]


def start_once(options: Path, address: Path) -> tuple[float, float]:
    """Seconds to ready and to the first token of one process."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "backends.llamacpp", "--listen", f"unix:{address}"]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--options", str(options)],
        cwd=ROOT,
        env=os.environ | {"SWAPPER_REPORT_FD": str(write)},
        pass_fds=[write],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with open(read, encoding="utf-8") as report:
            events = (json.loads(line)["event"] for line in report)
            if next((event for event in events if event != "loading"), None) != "ready":
                raise SystemExit("the worker did not get ready")
            ready = time.perf_counter() - begun
            _first_chunk(address)
            return ready, time.perf_counter() - begun
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _first_chunk(address: Path) -> None:
    connection = http.client.HTTPConnection("worker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(address))
    body = {"prompt": "once upon a time", "max_tokens": 4, "stream": True, "ignore_eos": True}
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200
    assert response.readline().startswith(b"data: ")
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--model", type=Path, help="a GGUF to use instead of the random one")
    parser.add_argument("--vocab-gguf", type=Path, help="copy the tokenizer from this GGUF")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench-gguf")
    parser.add_argument("--label", default="gguf-cold-start", help="name of the result file")
    given = parser.parse_args()
    about = machine.describe()
    model = given.model or make(given.folder, vocab=given.vocab_gguf)
    with tempfile.TemporaryDirectory() as folder:
        options, address = Path(folder, "options.json"), Path(folder, "socket")
        options.write_text(json.dumps({"path": str(model), "context": given.context}))
        start_once(options, address)  # the page cache is warm from here on
        times = [start_once(options, address) for _ in range(given.rounds)]
    results = {
        name: {
            "median_s": round(statistics.median(column), 3),
            "best_s": round(min(column), 3),
            "rounds_s": [round(value, 3) for value in column],
        }
        for name, column in zip(("ready", "first_token"), zip(*times, strict=True), strict=True)
    }
    for name, result in results.items():
        print(f"{name}: median {result['median_s']} s, best {result['best_s']} s")
    settings = {"rounds": given.rounds, "context": given.context, "model": model.name}
    print(
        f"raw figures: {machine.save(given.label, {'about': about | settings, 'results': results})}"
    )


if __name__ == "__main__":
    main()
