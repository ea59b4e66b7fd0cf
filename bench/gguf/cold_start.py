"""How long the GGUF worker takes from nothing to its first token.

    python -m bench.gguf.cold_start [--rounds 11] [--label NAME]

The worker alone. `ready`: from starting the process to the ready report. `first token`: from starting the
process to the first chunk of an answer that was asked for the moment it was ready.

Through `swapper serve`, from the request to the first chunk of its answer. `first request`: of a server
that has loaded nothing yet. `later request`: the model was unloaded before. The file is in the page cache.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.gguf import machine
from bench.gguf.model import make

ROOT = Path(__file__).parents[2]
REST_S = 2.0  # before a request through the proxy, as people rest; by then the server does too


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


@contextlib.contextmanager
def swapper(model: Path, context: int) -> Iterator[str]:
    """The URL of a server that has the model configured and not loaded."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        entry = {"engine": "llamacpp", "path": str(model), "context": context}
        config.write_text(json.dumps({"listen": address, "models": {"bench": entry}}))
        process = subprocess.Popen(
            [sys.executable, "-m", "swapper.cli", "serve", "--config", str(config)],
            cwd=ROOT,
            env=os.environ | {"XDG_STATE_HOME": folder, "XDG_RUNTIME_DIR": folder},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            _until_it_serves(f"http://{address}")
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(30)


def _until_it_serves(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return urllib.request.urlopen(f"{url}/health", timeout=30).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def ask_through(url: str) -> float:
    """Seconds from a request to the first chunk of its answer."""
    body = {"model": "bench", "prompt": "once upon a time", "max_tokens": 4, "stream": True}
    begun = time.perf_counter()
    with _post(f"{url}/v1/completions", body) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                took = time.perf_counter() - begun
                answer.read()
                return took
    raise SystemExit("there was no answer")


def _post(url: str, body: dict[str, object]) -> http.client.HTTPResponse:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=120)
    return answer


def through_the_proxy(model: Path, context: int, rounds: int) -> dict[str, list[float]]:
    """Times of first and later requests; a few servers, each with some loads."""
    first, later = [], []
    while len(later) < rounds:
        with swapper(model, context) as url:
            time.sleep(REST_S)
            first.append(ask_through(url))
            for _ in range(4):
                time.sleep(REST_S)
                _post(f"{url}/swapper/v1/models/bench/unload", {}).read()
                later.append(ask_through(url))
    return {"first_request": first, "later_request": later[:rounds]}


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
    columns = dict(zip(("ready", "first_token"), zip(*times, strict=True), strict=True))
    results = {
        name: {
            "median_s": round(statistics.median(column), 3),
            "best_s": round(min(column), 3),
            "rounds_s": [round(value, 3) for value in column],
        }
        for name, column in (
            columns | through_the_proxy(model, given.context, given.rounds)
        ).items()
    }
    for name, result in results.items():
        print(f"{name}: median {result['median_s']} s, best {result['best_s']} s")
    settings = {"rounds": given.rounds, "context": given.context, "model": model.name}
    print(
        f"raw figures: {machine.save(given.label, {'about': about | settings, 'results': results})}"
    )


if __name__ == "__main__":
    main()
