"""Clients in JavaScript: scenes played by node, and what came of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import KEY
from tests.system.conftest import PATIENCE_S

SCENES = Path(__file__).parent / "js"
Json = dict[str, Any]


def need(package: str) -> None:
    """Skip the module that asks where node or the package is missing."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed", allow_module_level=True)
    if not (SCENES / "node_modules" / package).is_dir():
        reason = "clients for JavaScript are not installed: npm ci in tests/clients/js"
        pytest.skip(reason, allow_module_level=True)


def play(script: str, scene: str, url: str, **fields: str) -> Json:
    """What came of a scene of a script; raises AssertionError where it fails by itself."""
    given = {"url": url, "key": KEY, "model": "scripted", "prompt": "hello", **fields}
    command = ["node", script, scene, json.dumps(given)]
    done = subprocess.run(command, cwd=SCENES, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found
