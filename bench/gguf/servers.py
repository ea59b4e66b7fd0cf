"""The servers that are compared, started on the same file with the same threads and the same room."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_S = 120.0


@dataclass(frozen=True, slots=True)
class Room:
    """What every server is given."""

    model: Path
    threads: int
    parallel: int
    context: int


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs."""

    name: str
    port: int
    can_ignore_eos: bool = True  # and counts its tokens in a stream's last chunk

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def worker(room: Room) -> Iterator[Server]:
    """This repository's worker, alone, without the proxy."""
    port = _free_port()
    options = {
        "model": "bench",
        "path": str(room.model),
        "threads": room.threads,
        "parallel": room.parallel,
        "context": room.context,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(options, file)
        file.flush()
        listen = ["--listen", f"tcp:127.0.0.1:{port}", "--options", file.name]
        with _running([sys.executable, "-m", "backends.llamacpp", *listen], port):
            yield Server("worker", port)


@contextmanager
def llama_server(program: Path, room: Room, *, unified: bool = True) -> Iterator[Server]:
    """llama.cpp's own server, with one KV pool for all sequences unless told otherwise."""
    port = _free_port()
    command = [
        *(str(program), "--model", str(room.model), "--port", str(port), "--host", "127.0.0.1"),
        *("--threads", str(room.threads), "--threads-batch", str(room.threads)),
        *("--parallel", str(room.parallel), "--ctx-size", str(room.context)),
        "--kv-unified" if unified else "--no-kv-unified",
    ]
    with _running(command, port):
        yield Server("llama-server" if unified else "llama-server-split", port)


@contextmanager
def python_server(room: Room) -> Iterator[Server]:
    """llama-cpp-python's server; its extra requirements must be importable."""
    port = _free_port()
    command = [
        *(sys.executable, "-m", "llama_cpp.server", "--model", str(room.model)),
        *("--host", "127.0.0.1", "--port", str(port), "--n_ctx", str(room.context)),
        *("--n_threads", str(room.threads), "--n_threads_batch", str(room.threads)),
        *("--interrupt_requests", "False"),
    ]
    with _running(command, port, health="/v1/models"):
        yield Server("llama_cpp.server", port, can_ignore_eos=False)


@contextmanager
def neighbour(is_wanted: bool) -> Iterator[None]:
    """Another program that keeps one core busy all the time."""
    if not is_wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _running(command: Sequence[str], port: int, health: str = "/health") -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment()
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}{health}", log)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def _wait(process: subprocess.Popen[bytes], url: str, log: object) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    log.seek(0)  # type: ignore[attr-defined]
    tail = log.read()[-2000:].decode("utf-8", "replace")  # type: ignore[attr-defined]
    raise SystemExit(f"{url} does not answer; its log ends:\n{tail}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
