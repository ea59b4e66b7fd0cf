"""The estimate for the models that come with swapper, against what their workers measure."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from swapper.config import DEMO_FOLDER, build_registry, folder_config, load
from swapper.core.events import DeviceReading

DEMOS = sorted(path.stem for path in DEMO_FOLDER.glob("*.gguf"))


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama.cpp is not installed"
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured on Linux")
@pytest.mark.parametrize("model", DEMOS)
def test_the_estimate_is_within_15_percent(model: str, tmp_path: Path) -> None:
    config = folder_config(DEMO_FOLDER)
    spec = build_registry(config, {"host": DeviceReading(64 << 30, 64 << 30)}).models[model]
    options = {**config.launches[model].options, **spec.variants[0].settings, "threads": 1}
    measured = host_bytes_of_worker("llamacpp", options, tmp_path)
    assert spec.variants[0].needs["host"] == pytest.approx(measured, rel=0.15)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured on Linux")
def test_the_estimate_of_a_checkpoint_is_within_15_percent(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        f"models: {{m: {{engine: paged, path: {DEMO_FOLDER / 'demo-chat'}, devices: []}}}}"
    )
    config = load(tmp_path / "config.yaml")
    spec = build_registry(config, {"host": DeviceReading(64 << 30, 64 << 30)}).models["m"]
    options = {**config.launches["m"].options, **spec.variants[0].settings, "threads": 1}
    measured = host_bytes_of_worker("paged", options, tmp_path)
    assert spec.variants[0].needs["host"] == pytest.approx(measured, rel=0.15)


def host_bytes_of_worker(engine: str, options: dict[str, object], folder: Path) -> int:
    """Load a model as swapper would; what its worker takes beside a swapper and nothing else.

    A worker measures its proportional share, which depends on how many others have the same libraries in
    memory; here the tests do, and whatever else runs. Beside the proxy alone, its share is what is its own
    and half of what is not.
    """
    file = folder / "options.json"
    file.write_text(json.dumps(options))
    command = [
        sys.executable,
        "-m",
        f"backends.{engine}",
        "--listen",
        f"unix:{folder}/s",
        "--options",
        str(file),
    ]
    reader, writer = os.pipe()
    environ = {**os.environ, "SWAPPER_REPORT_FD": str(writer)}
    with (
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=(writer,), env=environ,
            cwd=Path(__file__).parents[2],
        ) as worker,
        open(reader) as report,
    ):  # fmt: skip
        os.close(writer)
        events = [json.loads(line) for line in iter_until_ready(report)]
        assert events[-1]["event"] == "ready", events[-1]
        at_ready = psutil.Process(worker.pid).memory_full_info()
        ask_for_a_form(folder / "s")
        memory = psutil.Process(worker.pid).memory_full_info()
        assert worker.stdin is not None
        worker.stdin.close()
    assert at_ready.uss <= events[-1]["memory"]["host"] <= at_ready.rss
    return int(memory.uss + memory.rss) // 2


def ask_for_a_form(socket: Path) -> None:
    """By then it has all that it makes on first use, its vocabulary as grammars want it included."""
    body = {
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 4,
        "response_format": {"type": "json_object"},
    }
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=60) as client:
        answer = client.post("http://worker/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text


def iter_until_ready(report: object) -> list[str]:
    """The lines of a report, up to the one that decides."""
    lines: list[str] = []
    for line in report:  # type: ignore[attr-defined]
        lines.append(line)
        if "loading" not in line:
            break
    return lines
