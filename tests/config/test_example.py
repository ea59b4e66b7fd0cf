"""config.example.yaml is whole, and all of it works, what is commented out included."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from swapper.config import Config, config_schema
from swapper.config.load import parse_config
from swapper.config.schema import CaptureSection

jsonschema = pytest.importorskip("jsonschema")
EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
KEYS = {
    "AGENT_KEY": "of-agent",
    "SWAPPER_API_KEY": "a",
    "ALICE_KEY": "b",
    "BATCH_KEY": "batch",
    "WHISPER_KEY": "c",
    "OTHER_KEY": "d",
}


def uncommented() -> str:
    """The example with every key in it at work."""
    lines = EXAMPLE.read_text().splitlines()[1:]
    return "\n".join(re.sub(r"^( {0,2})# (?= *(- |[a-z_]+:( |$)))", r"\1", line) for line in lines)


def read(text: str, folder: Path) -> Config:
    (folder / "keys").mkdir()
    (folder / "keys/bob").write_text("of-bob")
    return parse_config(text, "example", folder, KEYS)


def test_it_works_as_it_is(tmp_path: Path) -> None:
    config = read(EXAMPLE.read_text(), tmp_path)
    assert list(config.models) == ["echo"]
    assert config.problems == ()


def test_it_works_uncommented(tmp_path: Path) -> None:
    config = read(uncommented(), tmp_path)
    assert [model.spec.engine for model in config.models.values()] == [
        "echo",
        "llamacpp",
        "paged",
        "command",
        "url",
    ]
    assert len(config.api_keys) == 5
    assert config.limits == {"big": 1}


def test_every_key_is_in_it() -> None:
    text = uncommented()
    missing = [key for key in keys(config_schema()) if not re.search(rf"\b{key}:", text)]
    assert missing == []


def test_what_is_commented_out_says_the_default(tmp_path: Path) -> None:
    document = yaml.safe_load(uncommented())
    plain = read("models: {m: {engine: echo}}", tmp_path)
    assert document["defaults"] == {
        "ttl": "10m", "max_wait": "auto", "queue_timeout": "10m", "queue_limit": 1000,
        "load_timeout": "5m", "stop_grace": "10s", "keepalive_after": "2s", "loading_text": False,
    }  # fmt: skip
    assert CaptureSection(**document["capture"]) == CaptureSection()
    assert plain.capture is None
    assert document["listen"] == str(plain.listen[0])
    assert document["memory"] == {"gpu": plain.memory.gpu, "host": plain.memory.host}


def test_the_schema_agrees() -> None:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(yaml.safe_load(uncommented()))] == []


@pytest.mark.parametrize(
    "text",
    [
        "models: {m: {engine: echo, ttl: 10}}",
        "models: {m: {engine: echo, path: x}}",
        "models: {m: {engine: nix}}",
        "models: {m: {engine: llamacpp}}",
        "memory: {host: 20}\nmodels: {m: {engine: echo}}",
        "nix: 1\nmodels: {m: {engine: echo}}",
    ],
)
def test_the_schema_finds_errors_too(text: str) -> None:
    assert not jsonschema.Draft202012Validator(config_schema()).is_valid(yaml.safe_load(text))


def keys(schema: Any) -> set[str]:
    """The names of all properties in a schema."""
    if isinstance(schema, list):
        return set().union(*map(keys, schema))
    if not isinstance(schema, dict):
        return set()
    own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return own.union(*map(keys, schema.values()))
