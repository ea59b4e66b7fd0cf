"""Strict tools from workers of both engines, whose models know no notation of calls at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from tests.echo.worker_process import WorkerProcess
from tests.serving.families import FAMILIES

DEMO = Path(__file__).parents[2] / "swapper" / "demo" / "demo-chat.gguf"
NOTATIONS = ["qwen coder", "gemma"]
BOOKING = {
    "type": "object",
    "properties": {
        "flight": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3,4}$"},
        "day": {"type": "string", "format": "date"},
        "note": {"type": "string", "minLength": 2, "maxLength": 6},
        "seats": {"type": "integer", "minimum": 1, "maximum": 9},
        "price": {"type": "number", "multipleOf": 0.5, "minimum": 10, "maximum": 99},
        "class": {"$ref": "#/$defs/class"},
        "bags": {
            "type": "array",
            "items": {"type": "string", "pattern": "^[0-9]{1,2}kg$"},
            "maxItems": 2,
        },
    },
    "required": ["flight", "day", "note", "seats", "price", "class", "bags"],
    "additionalProperties": False,
    "$defs": {"class": {"enum": ["first", "second", "<b>"]}},
}
CHECKER = jsonschema.FormatChecker(["date"])
BODY = {
    "messages": [{"role": "user", "content": "Book it."}],
    "tools": [
        {
            "type": "function",
            "function": {"name": "book", "parameters": BOOKING, "strict": True},
        }
    ],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "max_tokens": 600,
}


def retold(template: str, path: Path) -> Path:
    """The demo model with another chat template in the place of its own."""
    from backends.llamacpp.counting import open_vocabulary

    vocabulary = open_vocabulary({"model": "m", "path": str(DEMO)})
    own = (vocabulary.info.chat_template or "").encode()
    vocabulary.close()
    given = template.encode()
    assert own
    assert len(given) + 4 <= len(own)
    padding = b"{#" + b" " * (len(own) - len(given) - 4) + b"#}"
    path.write_bytes(DEMO.read_bytes().replace(own, given + padding))
    return path


def options(engine: str, template: str, folder: Path) -> dict[str, Any]:
    if engine == "llamacpp":
        pytest.importorskip("llama_cpp", reason="llama.cpp is not installed")
        return {"model": "m", "path": str(retold(template, folder / "m.gguf")), "threads": 1}
    pytest.importorskip("torch", reason="torch is not installed")
    from tests.paged.checkpoints import write_checkpoint

    checkpoint = write_checkpoint(folder / "random")
    (checkpoint / "chat_template.jinja").write_text(template)
    return {"model": "m", "path": str(checkpoint), "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module", params=["llamacpp", "paged"])
def engine(request: pytest.FixtureRequest) -> str:
    engine: str = request.param
    return engine


@pytest.fixture(scope="module", params=NOTATIONS)
def client(
    request: pytest.FixtureRequest, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    template = FAMILIES[request.param]
    for thought in ("<think>…</think>", "<|channel>thought<channel|>"):  # it would never end
        template = template.replace(thought, "")
    given = options(engine, template, tmp_path_factory.mktemp("model"))
    with WorkerProcess(given, module=engine) as worker, worker.ready().client() as client:
        yield client


@pytest.mark.parametrize("seed", range(2))
def test_arguments_validate_and_come_in_pieces(client: httpx.Client, seed: int) -> None:
    body = {**BODY, "seed": seed, "temperature": 1 + seed}
    answer = client.post("/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    [choice] = answer.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    whole = call["function"]["arguments"]
    jsonschema.validate(json.loads(whole), BOOKING, format_checker=CHECKER)
    with client.stream(
        "POST", "/v1/chat/completions", json={**body, "stream": True}, timeout=60
    ) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("data: {")]
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
    pieces = [
        part["function"]["arguments"] for delta in deltas for part in delta.get("tool_calls", ())
    ]
    assert "".join(pieces) == whole
    assert len(pieces) > 10
