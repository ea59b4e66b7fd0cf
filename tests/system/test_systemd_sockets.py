"""Restarts over a socket that the service manager holds, and what it sees of one that hangs or dies.

The service manager is played here: it passes its socket and listens to what it is told, in systemd's two
protocols. A systemd of its own would run the distribution's units, and these tidy up the whole machine.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from tests.system import activated
from tests.system.conftest import all_gone, eventually

CLIENTS = 8
RESTARTS = 3


class Manager:
    """Runs swapper as a unit with a socket: one process at a time, one socket for all of them."""

    def __init__(self, folder: Path, config: str) -> None:
        self.config = folder / "config.yaml"
        self.config.write_text(config)
        self.listening = activated.listening()
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(folder / "notify"))
        self.notified.settimeout(30)
        self.env = {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "800000",
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_RUNTIME_DIR": "",
        }
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, until: bytes | None = b"READY=1") -> None:
        command = [sys.executable, "-m", "swapper", "serve", "--config", str(self.config)]
        fd = self.listening.fileno()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, activated.__file__, str(fd), *command],
                stdout=out, stderr=out, pass_fds=[fd], env={**os.environ, **self.env},
            )  # fmt: skip
        if until is not None:
            self.wait_for(until)

    def wait_for(self, what: bytes) -> None:
        eventually(lambda: what in self.notified.recv(4096))

    def restart(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) == 0
        self.start()

    def chat(self) -> int:
        body = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=30).status_code

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.listening.close()
        self.notified.close()


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path, "models: {a: {engine: echo, parallel: 4}}")
    yield manager
    manager.close()


def test_restarts_under_load_fail_no_request(manager):
    manager.start()
    answers, over = [], threading.Event()

    def ask():
        while not over.is_set():
            try:
                answers.append(manager.chat())
            except httpx.HTTPError as error:
                answers.append(repr(error))

    def more_answers():
        so_far = len(answers)
        eventually(lambda: len(answers) > so_far + 3 * CLIENTS)

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(RESTARTS):
            more_answers()
            manager.restart()
        more_answers()
    finally:
        over.set()
        for client in clients:
            client.join(60)
    assert set(answers) == {200}


def test_a_reload_says_when_it_begins_and_when_it_is_done(manager):
    manager.start()
    manager.config.write_text("models: {a: {engine: echo}, b: {engine: echo}}")
    manager.process.send_signal(signal.SIGHUP)
    manager.wait_for(b"RELOADING=1\nMONOTONIC_USEC=")
    manager.wait_for(b"READY=1")
    listed = httpx.get(f"{manager.url}/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["a", "b"]


def test_one_that_hangs_says_nothing_so_that_the_watchdog_ends_it(manager):
    manager.start()
    manager.wait_for(b"WATCHDOG=1")
    manager.process.send_signal(signal.SIGSTOP)
    eventually(lambda: psutil.Process(manager.process.pid).status() == psutil.STATUS_STOPPED)
    while select.select([manager.notified], [], [], 0)[0]:  # what it said before
        manager.notified.recv(4096)
    manager.notified.settimeout(1.6)  # twice the watchdog's time
    with pytest.raises(TimeoutError):
        manager.notified.recv(4096)


def test_a_killed_one_leaves_nothing_behind_and_the_next_takes_over(manager):
    manager.start()
    assert manager.chat() == 200
    family = psutil.Process(manager.process.pid).children(recursive=True)
    assert family
    manager.process.kill()
    manager.process.wait()
    eventually(lambda: all_gone(family))
    manager.start()
    assert manager.chat() == 200


def test_workers_do_not_inherit_the_socket(manager):
    manager.start()
    manager.chat()
    inode = os.fstat(manager.listening.fileno()).st_ino
    for worker in psutil.Process(manager.process.pid).children(recursive=True):
        held = [os.readlink(fd) for fd in Path(f"/proc/{worker.pid}/fd").iterdir()]
        assert f"socket:[{inode}]" not in held
        assert b"LISTEN_FDS" not in Path(f"/proc/{worker.pid}/environ").read_bytes()


def test_a_socket_open_to_all_needs_keys(tmp_path):
    """What `listen` says does not count then, so the check has to look at the socket."""
    manager = Manager(tmp_path, "models: {a: {engine: echo}}")
    try:
        manager.listening.close()
        manager.listening = socket.create_server(("0.0.0.0", 0))
        manager.start(until=None)
        assert manager.process.wait(30) == os.EX_CONFIG
        assert "api_keys" in manager.log.read_text()
    finally:
        manager.close()
