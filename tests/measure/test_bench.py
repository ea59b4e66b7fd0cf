"""`swapper bench` against a real server with echo models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Swapper, serving

CONFIG = """
max_loaded: 1
defaults: {keepalive_after: 1m}
models:
  quick: {engine: echo, options: {tokens_per_s: 20.0, first_token_s: 0.1}}
  other: {engine: echo, options: {load_s: 0.3}}
  broken: {engine: echo, options: {fail_load: bad_file}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Swapper]:
    with serving(tmp_path, CONFIG) as swapper:
        yield swapper


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "swapper", "bench", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip

    return run


def test_what_is_measured_is_what_the_engine_does(
    server: Swapper, bench: Any, tmp_path: Path
) -> None:
    arguments = ("-c", "1,2", "-r", "2", "-n", "8", "-p", "a b c d e f g h i j k l m")
    result = bench(server.url, "quick", "other", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert [(level["model"], level["concurrency"]) for level in told["levels"]] == [
        ("quick", 1), ("quick", 2), ("other", 1), ("other", 2),
    ]  # fmt: skip
    one, two = told["levels"][:2]
    assert (one["num_answers"], two["num_answers"], one["num_failed"]) == (2, 4, 0)
    assert 0.1 <= one["first_p50_s"] < 1.0
    # 20 tokens a second: so slow that they do not come in bunches to a client who is held up.
    assert 0.03 <= one["gap_p50_s"] < 0.5
    assert one["tokens_per_s"] < 20
    assert two["tokens_per_s"] > one["tokens_per_s"]
    swaps = [turn["first_s"] for turn in told["turns"] if turn["model"] == "other"]
    assert len(swaps) == 2
    assert min(swaps) > 0.3  # loaded anew each time
    assert "<svg" in (tmp_path / "swapper-bench.html").read_text()


def test_the_table(server: Swapper, bench: Any, tmp_path: Path) -> None:
    result = bench(f"{server.url}/v1", "quick", "-c", "1", "-r", "1", "-n", "4", "--no-html")
    assert result.returncode == 0, result.stderr
    header, row, first = result.stdout.splitlines()
    assert header.split()[:3] == ["model", "at", "once"]
    assert row.split()[:4] == ["quick", "1", "1", "0"]
    assert first.startswith("quick: first answer after ")
    assert not (tmp_path / "swapper-bench.html").exists()


def test_what_does_not_answer_is_told(server: Swapper, bench: Any) -> None:
    result = bench(server.url, "quick", "broken", "-c", "1", "-r", "1", "-n", "2", "--no-html")
    assert result.returncode == 1
    assert "quick" in result.stdout
    (error,) = result.stderr.splitlines()
    assert error.startswith("Error: broken: 503: ")


def test_nobody_there(bench: Any, tmp_path: Path) -> None:
    result = bench("127.0.0.1:9", "m")
    assert result.returncode == 1
    (error,) = result.stderr.splitlines()
    assert error.startswith("Error: m: Cannot connect")
    assert bench("127.0.0.1:9", "m", "-c", "0").returncode == 2
