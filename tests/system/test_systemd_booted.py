"""The units as shipped, under a real systemd that is PID 1 of namespaces of its own.

`booted/boot.sh` says why nothing of this reaches the machine. It needs root, and a kernel that allows it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.conftest import eventually

HERE = Path(__file__).parent / "booted"
PROJECT = Path(__file__).parents[2]
DEMO = "/opt/project/swapper/demo"
TOOLS = ("unshare", "nsenter", "systemctl", "pivot_root")
GROUP = "/sys/fs/cgroup/system.slice/swapper.service/cgroup.procs"
MODELS = {
    "fast": {"engine": "echo"},
    "chat": {"engine": "llamacpp", "path": f"{DEMO}/demo-chat.gguf", "context": 512},
    "story": {"engine": "paged", "path": f"{DEMO}/demo-story", "context": 256},
}


class Machine:
    """A booted systemd with swapper's units, and swapper listening on this machine's loopback."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self._port = port

    def run(self, *argv: str, given: str = "") -> str:
        """What a command inside says; raises CalledProcessError."""
        [first] = psutil.Process(self._process.pid).children()
        inside = ["nsenter", "-t", str(first.pid), "--mount", "--pid", "--cgroup", "--ipc", "--uts"]
        done = subprocess.run(
            [*inside, *argv], input=given, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def shown(self, name: str) -> str:
        """A property of the service."""
        return self.run("systemctl", "show", "swapper.service", "--value", "-p", name).strip()

    @property
    def processes(self) -> list[int]:
        """All of the service's, by their numbers inside."""
        try:
            return [int(line) for line in self.run("cat", GROUP).split()]
        except subprocess.CalledProcessError:
            return []  # it has no control group any more

    def is_up(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError, psutil.Error, ValueError):
            return self.shown("ActiveState") == "active"
        return False

    def log(self) -> str:
        return self.run("cat", "/var/log/swapper.log")

    def configure(self, models: dict[str, object]) -> None:
        """Write another configuration; who reads it when is another matter."""
        text = json.dumps({"models": models})
        self.run("tee", "/etc/swapper/config.yaml", given=text)

    def get(self, path: str) -> object:
        return self._ask("GET", path)

    def chat(self, model: str) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": "What is swapper?"}]}
        answer = self._ask("POST", "/v1/chat/completions", body | {"max_tokens": 8})
        return answer["choices"][0]["message"]["content"]  # type: ignore[index, no-any-return]

    def _ask(self, method: str, path: str, body: object = None) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            return json.loads(text)


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("booting a systemd in a namespace needs root")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"booting a systemd in a namespace needs {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("root")
    log = tmp_path_factory.mktemp("boot") / "log"
    with _control_group() as group, log.open("wb") as output:
        port = _free_port()
        process = _boot(group, folder, port, output)
        try:
            booted = Machine(process, port)
            if not _comes_up(booted, process):
                _skip_or_fail(log.read_text(errors="replace"))
            yield booted
        finally:
            process.kill()  # and with it PID 1, and with that all the rest
            process.wait()


@contextlib.contextmanager
def _control_group() -> Iterator[Path]:
    """One of our own for systemd to rule: in another it would sort the others' processes."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    root = next((Path(place) for _, place, kind, *_ in mounts if kind == "cgroup2"), None)
    if root is None:
        pytest.skip("booting a systemd in a namespace needs control groups, version 2")
    group = root / f"swapper-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    try:
        yield group
    finally:
        eventually(lambda: "populated 0" in (group / "cgroup.events").read_text())
        for place in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
            place.rmdir()
        group.rmdir()


def _boot(group: Path, folder: Path, port: int, output: object) -> subprocess.Popen[bytes]:
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = sysconfig.get_path("purelib")
    spaces = ("--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--kill-child")
    into_group = f'echo $$ > "{group}/cgroup.procs"; exec "$@"'
    process = subprocess.Popen(
        [
            *("bash", "-c", into_group, "-", "unshare", *spaces),
            *(str(HERE / "boot.sh"), str(folder), sys.base_prefix, site, str(PROJECT)),
            *("bash", "/opt/project/tests/system/booted/init.sh", str(port), python),
        ],
        stdin=subprocess.PIPE,
        stdout=output,  # type: ignore[call-overload]
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    with process.stdin as given:
        given.write(json.dumps({"models": MODELS}).encode())
    return process


def _comes_up(booted: Machine, process: subprocess.Popen[bytes]) -> bool:
    eventually(lambda: process.poll() is not None or booted.is_up(), within_s=90.0)
    return process.poll() is None


def _skip_or_fail(log: str) -> None:
    if "the root is made" in log:
        pytest.fail(f"systemd did not boot:\n{log}")
    reason = (log.strip() or "nothing was said").splitlines()[0]
    pytest.skip(f"this host does not let a systemd boot in a namespace: {reason}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_it_is_up_sandboxed_and_says_what_it_does(machine):
    assert machine.get("/health")
    eventually(lambda: machine.shown("StatusText") == "0 of 3 models loaded")
    main = machine.shown("MainPID")
    status = dict(
        line.split(":", 1) for line in machine.run("cat", f"/proc/{main}/status").splitlines()
    )
    assert int(status["Uid"].split()[0]) > 0
    assert status["CapEff"].strip().strip("0") == ""
    assert status["Seccomp"].strip() == "2"


@pytest.mark.parametrize("model", ["chat", "story"])
def test_engines_work_in_the_sandbox(machine, model):
    pytest.importorskip({"chat": "llama_cpp", "story": "torch"}[model])
    assert machine.chat(model)
    assert "not forked" not in machine.log()


def test_three_restarts_under_load_fail_no_request(machine):
    machine.chat("fast")
    ended, failures, num_answers = threading.Event(), [], [0] * 8

    def ask(number: int) -> None:
        while not ended.is_set():
            try:
                machine.chat("fast")
                num_answers[number] += 1
            except Exception as error:  # noqa: BLE001 - whatever a client meets is a failure
                failures.append(error)

    clients = [threading.Thread(target=ask, args=[number]) for number in range(8)]
    for client in clients:
        client.start()
    pids = [machine.shown("MainPID")]
    for _ in range(3):
        before = sum(num_answers)
        eventually(lambda before=before: sum(num_answers) > before + 20, within_s=60.0)
        machine.run("systemctl", "restart", "swapper.service")
        pids.append(machine.shown("MainPID"))
    ended.set()
    for client in clients:
        client.join(120)
    assert not failures
    assert len(set(pids)) == 4
    assert machine.shown("Result") == "success"


def test_reload_takes_the_configuration_over_and_the_process_stays(machine):
    main = machine.shown("MainPID")
    machine.configure(MODELS | {"another": {"engine": "echo"}})
    machine.run("systemctl", "reload", "swapper.service")
    eventually(lambda: "another" in json.dumps(machine.get("/v1/models")))
    eventually(lambda: machine.shown("ActiveState") == "active")
    assert machine.chat("another")
    assert machine.shown("MainPID") == main


def test_one_that_hangs_is_replaced(machine):
    main = machine.shown("MainPID")
    machine.run("kill", "-STOP", main)
    eventually(lambda: machine.shown("MainPID") not in (main, "0"), within_s=30.0)
    assert machine.chat("fast")


def test_killed_it_leaves_nothing_behind_and_comes_back(machine):
    machine.chat("fast")
    main, family = machine.shown("MainPID"), set(machine.processes)
    assert len(family) > 1
    machine.run("kill", "-KILL", main)
    eventually(lambda: not family & set(machine.processes))
    eventually(lambda: machine.shown("ActiveState") == "active", within_s=30.0)
    assert machine.chat("fast")


def test_stopped_it_ends_in_order_and_the_socket_goes_last(machine):
    machine.chat("fast")
    machine.run("systemctl", "stop", "swapper.service", "swapper.socket")
    assert not machine.processes
    assert machine.shown("Result") == "success"
    assert machine.shown("ActiveState") == "inactive"
    with pytest.raises(ConnectionRefusedError):
        machine.get("/health")
