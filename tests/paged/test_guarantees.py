"""A model that knows nothing keeps to a schema all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from tests.echo.worker_process import WorkerProcess
from tests.serving.odd_schemas import KEPT, PERSON, REFUSED

TOOL = {"type": "function", "function": {"name": "meet", "parameters": PERSON}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    pytest.importorskip("torch", reason="torch is not installed")
    from tests.paged.checkpoints import write_checkpoint

    folder: Path = write_checkpoint(tmp_path_factory.mktemp("random") / "random")
    options = {"model": "m", "path": str(folder), "threads": 1, "device": "cpu"}
    with WorkerProcess(options, module="paged") as worker:
        worker.ready()
        with worker.client() as client:
            yield client


def ask(client: httpx.Client, **fields: Any) -> Any:
    body = {"messages": [{"role": "user", "content": "Who?"}], "max_tokens": 400, **fields}
    answer = client.post("/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


@pytest.mark.parametrize("seed", range(6))
def test_a_schema_is_kept_at_any_temperature(client: httpx.Client, seed: int) -> None:
    schema = {"name": "x", "schema": PERSON, "strict": True}
    form = {"type": "json_schema", "json_schema": schema}
    choice = ask(client, response_format=form, seed=seed, temperature=seed / 2)
    assert choice["finish_reason"] == "stop"
    jsonschema.validate(json.loads(choice["message"]["content"]), PERSON)


@pytest.mark.parametrize("seed", range(4))
def test_a_required_call_has_valid_arguments(client: httpx.Client, seed: int) -> None:
    one = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    choice = ask(client, **one, seed=seed, temperature=seed / 2)
    assert choice["finish_reason"] == "tool_calls"
    for call in choice["message"]["tool_calls"]:
        jsonschema.validate(json.loads(call["function"]["arguments"]), PERSON)


@pytest.mark.parametrize("name", REFUSED)
def test_odd_schemas_are_refused(client: httpx.Client, name: str) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": REFUSED[name][0], "strict": True}}
    body = {"messages": [{"role": "user", "content": "Who?"}], "response_format": form}
    answer = client.post("/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400, answer.text
    assert "cannot be followed" in answer.text or "too deeply" in answer.text


@pytest.mark.parametrize("name", KEPT)
def test_odd_schemas_are_kept_to(client: httpx.Client, name: str) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": KEPT[name], "strict": True}}
    choice = ask(client, response_format=form, seed=1, temperature=1)
    if choice["finish_reason"] == "stop":
        jsonschema.validate(json.loads(choice["message"]["content"]), KEPT[name])
