"""Small GGUF files with real headers, and configurations written to disk."""

from __future__ import annotations

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
