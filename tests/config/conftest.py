"""Small GGUF files with real headers, and configurations written to disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from swapper.config import Config, load_config


def write_gguf(path: Path, *, layers: int = 2, words: int = 300, **changes: Any) -> Path:
    """A llama of nothing but zeros. `changes` add or replace keys of its architecture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(
        path,
        changes.pop("arch", "llama"),
        endianess=changes.pop("endianess", gguf.GGUFEndian.LITTLE),
    )
    numbers = {
        "block_count": layers,
        "context_length": 2048,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
    }
    for key, value in {**numbers, **changes}.items():
        name = f"{writer.arch}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        else:
            writer.add_uint32(name, value)
    writer.add_array("tokenizer.ggml.tokens", [f"word{number}" for number in range(words)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * words)
    writer.add_tensor("token_embd.weight", np.zeros((words, 64), np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(64, np.float32))
    for layer in range(layers):
        writer.add_tensor(f"blk.{layer}.attn_q.weight", np.zeros((64, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def make_gguf(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model below the test's folder."""

    def make(name: str = "model.gguf", **changes: Any) -> Path:
        return write_gguf(tmp_path / name, **changes)

    return make


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Config]:
    """Reads a configuration given as text, out of the test's folder."""

    def read(text: str, **environ: str) -> Config:
        path = tmp_path / "swapper.yaml"
        path.write_text(text)
        return load_config(path, environ)

    return read


def write_checkpoint(folder: Path, **changes: Any) -> Path:
    """A llama of nothing but zeros, as safetensors. `changes` add or replace keys of its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "dtype": "bfloat16",
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    width = config["hidden_size"]
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], width]}
    for layer in range(config["num_hidden_layers"]):
        shapes[f"model.layers.{layer}.self_attn.q_proj.weight"] = [width, width]
    header, end = {}, 0
    for name, (rows, columns) in shapes.items():
        begin, end = end, end + 2 * rows * columns
        header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(end)
    (folder / "model.safetensors").write_bytes(data)
    return folder


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint below the test's folder."""

    def make(name: str = "model", **changes: Any) -> Path:
        return write_checkpoint(tmp_path / name, **changes)

    return make
