"""What clients are told of models before they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapper.config import DEMO_FOLDER, Card, cards_of, parse_config

CONFIG = """
models:
  gguf: {{engine: llamacpp, path: {folder}/demo-chat.gguf, context: 512}}
  whole: {{engine: llamacpp, path: {folder}/demo-story.gguf}}
  folder: {{engine: paged, path: {folder}/demo-chat}}
  lost: {{engine: llamacpp, path: nowhere.gguf}}
  echo: {{engine: echo, context: 99}}
  far: {{engine: url, url: "http://127.0.0.1:1"}}
"""


@pytest.fixture(scope="module")
def cards() -> dict[str, Card]:
    text = CONFIG.format(folder=DEMO_FOLDER)
    return cards_of(parse_config(text, "config.yaml", Path.cwd(), {}))


def test_a_gguf(cards: dict[str, Card]) -> None:
    card = cards["gguf"]
    assert (card.format, card.architecture, card.quantization) == ("gguf", "llama", "F16")
    assert card.context == 512  # as configured
    assert cards["whole"].context == 1024  # as it was trained
    assert cards["whole"].quantization == "Q4_K_M"
    assert 1_000_000 < card.num_parameters < 10_000_000
    assert card.size_bytes == (DEMO_FOLDER / "demo-chat.gguf").stat().st_size
    assert card.modified_at > 1e9
    assert "message" in card.template
    assert card.facts["llama.block_count"] == 4
    assert not any(key.startswith("tokenizer.") for key in card.facts)
    assert not card.is_embedder


def test_a_folder_of_safetensors(cards: dict[str, Card]) -> None:
    card = cards["folder"]
    assert (card.format, card.architecture) == ("safetensors", "llama")
    assert card.context == 2048
    assert card.num_parameters == pytest.approx(cards["gguf"].num_parameters, rel=0.02)
    assert card.facts["llama.embedding_length"] == 256


def test_models_without_files(cards: dict[str, Card]) -> None:
    assert cards["lost"] == cards["far"] == Card()
    assert cards["echo"] == Card(context=99)
