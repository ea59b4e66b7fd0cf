"""What is shipped: complete, small, and the same in both formats."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.demo.conftest import DEMO
from training.words import listed

if TYPE_CHECKING:
    from tests.demo.greedy import GreedyModel

NAMES = ["demo-chat", "demo-story"]
FOLDER = listed("""config.json tokenizer.json tokenizer_config.json chat_template.jinja
generation_config.json model.safetensors""")
NASTY = [
    "",
    " ",
    "  two  spaces ",
    "tab\tand\r\nnew\n\n\nlines \n ",
    "naïve café Ünïcödé ßẞ",
    "日本語テキスト と 中文",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "e\u0301 combining \u0300\u0301",
    "no-break\u00a0space\u2003em\u200bzero",
    "\x00\x01\x7f control",
    "1234567890 3.14 ½ ² ٣",
    "don't we'll I'M they'RE",
    "<|im_start|>user\nhi<|im_end|>\n",
    '<tool_call>\n{"name": "x", "arguments": {}}\n</tool_call>',
    "snake_case-kebab/Path\\back `code` ${env:KEY}",
]
ALPHABETS = [
    "abcXYZ ",
    "01 .,;:!?'\"",
    "äöüéñç ",
    "日本中文 ",
    "\n\t\r ",
    "<|>{}[]()/_-",
    "👍🎉🏽\u200d",
]


def test_the_whole_is_small() -> None:
    assert sum(file.stat().st_size for file in DEMO.rglob("*") if file.is_file()) < 20_000_000


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_missing(name: str) -> None:
    assert (DEMO / f"{name}.gguf").is_file()
    assert {file.name for file in (DEMO / name).iterdir()} == set(FOLDER)
    assert name in (DEMO / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_header_is_complete(name: str, request: pytest.FixtureRequest) -> None:
    model: GreedyModel = request.getfixturevalue(f"{name.removeprefix('demo-')}_model")
    config = json.loads((DEMO / name / "config.json").read_text())
    assert model.metadata("general.architecture") == "llama"
    assert model.metadata("general.name") == name
    assert model.metadata("general.license") == "MIT"
    assert int(model.metadata("llama.context_length")) == config["max_position_embeddings"]
    assert int(model.metadata("tokenizer.ggml.eos_token_id")) == config["eos_token_id"]
    template = (DEMO / name / "chat_template.jinja").read_text()
    assert model.metadata("tokenizer.chat_template") == template


def test_the_two_models_differ() -> None:
    chat, story = (json.loads((DEMO / name / "config.json").read_text()) for name in NAMES)
    for key in ("vocab_size", "num_hidden_layers", "num_key_value_heads"):
        assert chat[key] != story[key]


def fuzz(rng: Random) -> str:
    letters = "".join(rng.choices(ALPHABETS, k=rng.randint(1, 3)))
    return "".join(rng.choices(letters, k=rng.randint(1, 40)))


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_tokenize_alike(name: str, request: pytest.FixtureRequest) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model: GreedyModel = request.getfixturevalue(f"{name.removeprefix('demo-')}_model")
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO / name / "tokenizer.json"))
    rng = Random(7)
    for text in [*NASTY, *(fuzz(rng) for _ in range(1500))]:
        assert model.tokenize(text) == tokenizer.encode(text).ids, repr(text)


def test_both_formats_hold_the_same_weights() -> None:
    """demo-chat only: demo-story's GGUF is quantised."""
    gguf = pytest.importorskip("gguf")
    numpy = pytest.importorskip("safetensors.numpy")
    weights = numpy.load_file(DEMO / "demo-chat" / "model.safetensors")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(DEMO / "demo-chat.gguf").tensors}
    assert len(tensors) == len(weights)
    embedding = tensors["token_embd.weight"].data
    assert (embedding == weights["model.embed_tokens.weight"]).all()
    down = tensors["blk.3.ffn_down.weight"].data
    assert (down == weights["model.layers.3.mlp.down_proj.weight"]).all()
