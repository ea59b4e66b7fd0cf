"""The units are right, and the service manager is told what it needs to know."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from swapper.cli.service import Place, rendered
from swapper.config import Listen
from tests.system.conftest import eventually

UNITS = Path(__file__).parents[2] / "swapper" / "units"
MOST_EXPOSED = 2.0

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def analyze(*arguments, cwd, scope="--system"):
    env = {**os.environ, "XDG_RUNTIME_DIR": str(cwd)}
    command = ["systemd-analyze", scope, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=60)
    return done.returncode, done.stdout, done.stderr


@needs_analyze
@pytest.mark.parametrize(
    ("folder", "unit", "scope"),
    [
        ("system", "swapper.service", "--system"),
        ("system", "swapper.socket", "--system"),
        ("system", "swapper@lab.service", "--system"),
        ("system", "swapper-sleep.service", "--system"),
        ("user", "swapper.service", "--user"),
    ],
)
def test_systemd_analyze_has_nothing_to_say(folder, unit, scope, tmp_path):
    """Its exit status is 0 for unknown keys too, so its silence is what counts."""
    shutil.copytree(UNITS / folder, tmp_path, dirs_exist_ok=True)
    assert analyze("verify", f"./{unit}", cwd=tmp_path, scope=scope) == (0, "", "")


@needs_analyze
@pytest.mark.parametrize("unit", ["swapper.service", "swapper@lab.service"])
def test_a_service_is_hardly_exposed(unit, tmp_path):
    shutil.copytree(UNITS / "system", tmp_path, dirs_exist_ok=True)
    _, out, _ = analyze("security", "--offline=true", f"./{unit}", cwd=tmp_path)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", out)
    assert found is not None, out
    assert float(found[1]) <= MOST_EXPOSED


def test_engines_may_write_the_code_that_they_run_and_use_gpus():
    """Triton, torch and CUDA fail otherwise, and only once a model runs."""
    for unit in (UNITS / "system" / "swapper.service", UNITS / "system" / "swapper@.service"):
        lines = unit.read_text().splitlines()
        assert not [line for line in lines if line.startswith("MemoryDenyWriteExecute")]
        assert "PrivateDevices=no" in lines
        allowed = {line.split("=")[1] for line in lines if line.startswith("DeviceAllow=")}
        assert {"char-nvidia* rw", "char-drm rw", "char-kfd rw"} <= allowed


@needs_analyze
@pytest.mark.parametrize("is_user", [False, True])
def test_install_service_writes_units_that_systemd_understands(is_user, tmp_path):
    program = Path(sys.executable).parent / "swapper"
    listen = (Listen("127.0.0.1", 9000), Listen(socket_path="/run/sw %n.sock"))
    place = Place(program, tmp_path / "my 100% config.yaml", listen, ["video"], True)
    units = rendered(place, is_user=is_user)
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    scope = "--user" if is_user else "--system"
    assert analyze("verify", "./swapper.service", cwd=tmp_path, scope=scope) == (0, "", "")
    service, sockets = units["swapper.service"], units["swapper.socket"]
    assert f'ExecStart={program} serve --config "{tmp_path}/my 100%% config.yaml"' in service
    assert "ListenStream=127.0.0.1:9000\nListenStream=/run/sw %%n.sock\n" in sockets
    if not is_user:
        assert "SupplementaryGroups=video\n" in service
        assert "ProtectHome=read-only\n" in service


def said(manager, what):
    """The next thing said, if it is that."""
    told = manager.recv(4096)
    return told if what in told else None


def test_it_says_when_it_is_ready_what_it_does_and_when_it_stops(serve, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        swapper = serve("models: {a: {engine: echo}}", **env)
        assert b"READY=1" in manager.recv(4096)
        swapper.chat("a")
        told = eventually(lambda: said(manager, b"STATUS=1 of 1 models loaded: a"))
        assert b"WATCHDOG=1" in told
        environ = Path(f"/proc/{swapper.workers()['a']}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environ
        assert b"WATCHDOG" not in environ
        swapper.process.send_signal(signal.SIGTERM)
        eventually(lambda: said(manager, b"STOPPING=1"))
        assert swapper.process.wait(30) == 0


def test_everything_is_unloaded_before_a_suspend(serve):
    """The command of the suspend hook."""
    swapper = serve("models: {a: {engine: echo}, b: {engine: echo}}")
    swapper.chat("a")
    swapper.chat("b")
    command = [sys.executable, "-m", "swapper", "stop", "--all"]
    env = {**os.environ, "SWAPPER_URL": swapper.url}
    assert subprocess.run(command, env=env, timeout=60).returncode == 0
    assert swapper.workers() == {}
