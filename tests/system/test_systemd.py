"""The units are right, and the service manager is told what it needs to know."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"


@pytest.mark.parametrize(
    ("unit", "scope"), [("swapper.service", "--system"), ("swapper-user.service", "--user")]
)
def test_systemd_analyze_has_nothing_to_say(unit, scope, tmp_path):
    """Its exit status is 0 for unknown keys too, so its silence is what counts."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", scope, "verify", str(UNITS / unit)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_says_when_it_is_ready_and_when_it_stops(serve, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        swapper = serve("models: {a: {engine: echo}}", NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert b"READY=1" in manager.recv(4096)
        swapper.chat("a")
        environ = Path(f"/proc/{swapper.workers()['a']}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environ
        assert swapper.stop(signal.SIGTERM) == 0
        assert b"STOPPING=1" in manager.recv(4096)
