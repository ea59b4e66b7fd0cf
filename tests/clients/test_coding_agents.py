"""Claude Code and Codex themselves, where they are installed: a turn in which they run a command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import KEY
from tests.clients.scripted import ScriptedServer

PATIENCE_S = 60.0
CODEX = """
model = "scripted"
model_provider = "swapper"
model_reasoning_summary = "auto"
[model_providers.swapper]
name = "swapper"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "SWAPPER_API_KEY"
"""


def run(program: str, *arguments: str, folder: Path, **env: str) -> str:
    """What it prints, run in an empty folder by somebody without settings."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [path, *arguments], cwd=folder, env={**os.environ, "HOME": str(folder), **env},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_claude_code(url: str, scripted: ScriptedServer, tmp_path: Path) -> None:
    asked = ("-p", "weather?", "--allowedTools", "Bash", "--output-format", "json")
    told = run(
        "claude",
        *asked,
        folder=tmp_path,
        ANTHROPIC_BASE_URL=url,
        ANTHROPIC_API_KEY=KEY,
        ANTHROPIC_MODEL="local-claude",
        ANTHROPIC_SMALL_FAST_MODEL="local-claude",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )
    found = json.loads(told)
    assert found["is_error"] is False
    assert found["result"] == "It is rainy in Oslo."
    assert found["usage"]["output_tokens"] == 14
    assert scripted.seen[-1]["messages"][-2]["reasoning_content"] == "The tool knows."


def test_codex(url: str, scripted: ScriptedServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(CODEX.format(url=url))
    asked = ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
    told = run(
        "codex", *asked, "weather?", folder=tmp_path, CODEX_HOME=str(home), SWAPPER_API_KEY=KEY
    )
    assert "rainy" in told
    assert told.strip().endswith("in Oslo.")
    assert scripted.seen[-1]["messages"][-2]["reasoning_content"] == "The tool knows."
