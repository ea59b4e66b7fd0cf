"""Tiny random models, written here: two layers, a byte-level vocabulary, a chat template."""

from __future__ import annotations

import ctypes
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "i n", "Ġ t"]


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256)]


def vocabulary() -> list[str]:
    return [*byte_symbols(), *(merge.replace(" ", "") for merge in MERGES), *SPECIAL]


def add_vocabulary(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    control = len(tokens) - len(SPECIAL)
    kinds = [gguf.TokenType.NORMAL] * control + [gguf.TokenType.CONTROL] * len(SPECIAL)
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(control)
    writer.add_eos_token_id(control + 2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def write_model(
    path: Path,
    *,
    seed: int = 1,
    architecture: str = "llama",
    context: int = 2048,
    pooling: int | None = None,
    layers: int = 2,
    sections: list[int] | None = None,
) -> Path:
    """A random causal model whose greedy answers do not repeat one token for ever."""
    tokens = vocabulary()
    width, heads, kv_heads, inner = 64, 4, 2, 128
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    if sections is not None:
        writer.add_rope_dimension_sections(sections)
    if pooling is not None:
        writer.add_pooling_type(gguf.PoolingType(pooling))
    add_vocabulary(writer, tokens)
    random = np.random.default_rng(seed)

    def add(name: str, *shape: int, scale: float = 0.3) -> None:
        writer.add_tensor(name, random.normal(0, scale, shape).astype(np.float32))

    add("token_embd.weight", len(tokens), width, scale=1.0)
    add("output.weight", len(tokens), width, scale=0.5)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, np.float32))
        add(f"blk.{layer}.attn_q.weight", width, width)
        add(f"blk.{layer}.attn_k.weight", width * kv_heads // heads, width)
        add(f"blk.{layer}.attn_v.weight", width * kv_heads // heads, width)
        add(f"blk.{layer}.attn_output.weight", width, width)
        add(f"blk.{layer}.ffn_gate.weight", inner, width)
        add(f"blk.{layer}.ffn_up.weight", inner, width)
        add(f"blk.{layer}.ffn_down.weight", width, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_recurrent(path: Path, *, context: int = 2048) -> Path:
    """A random Mamba: a state instead of a KV cache, which cannot be cut."""
    tokens, random = vocabulary(), np.random.default_rng(5)
    width, inner, state, rank, kernel = 32, 64, 8, 4, 4
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(2)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    add_vocabulary(writer, tokens)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.4, shape).astype(np.float32))

    add("token_embd.weight", len(tokens), width)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(2):
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", np.ones(width, np.float32))
        add(f"blk.{layer}.ssm_in.weight", 2 * inner, width)
        add(f"blk.{layer}.ssm_conv1d.weight", inner, kernel)
        add(f"blk.{layer}.ssm_conv1d.bias", inner)
        add(f"blk.{layer}.ssm_x.weight", rank + 2 * state, inner)
        add(f"blk.{layer}.ssm_dt.weight", inner, rank)
        add(f"blk.{layer}.ssm_dt.bias", inner)
        a = -np.tile(np.arange(1, state + 1, dtype=np.float32), (inner, 1))
        writer.add_tensor(f"blk.{layer}.ssm_a", a)
        add(f"blk.{layer}.ssm_d", inner)
        add(f"blk.{layer}.ssm_out.weight", width, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_encoder(path: Path, *, context: int = 64, pooling: int = 2) -> Path:
    """A random BERT: attention in both directions, positions from a table, words as tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*"abcdefghijklmnopqrstuvwxyz", "hello", "world"]
    tokens = [*special, *("\u2581" + word for word in words), *words]
    width, inner = 32, 64
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(2)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType(pooling))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * (len(tokens) - 5)
    )
    writer.add_token_type_count(2)
    writer.add_unk_token_id(1)
    writer.add_sep_token_id(3)
    writer.add_bos_token_id(2)
    random = np.random.default_rng(3)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.5, shape).astype(np.float32))

    def add_with_bias(name: str, *shape: int) -> None:
        add(name, *shape)
        writer.add_tensor(f"{name}.bias", np.zeros(shape[0], np.float32))

    add("token_embd", len(tokens), width)
    add("position_embd", context, width)
    add("token_types", 2, width)
    add_with_bias("token_embd_norm", width)
    if pooling == gguf.PoolingType.RANK:
        add_with_bias("cls", width, width)
        add_with_bias("cls.output", 1, width)
    for layer in range(2):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add_with_bias(f"blk.{layer}.{part}", width, width)
        add_with_bias(f"blk.{layer}.attn_output_norm", width)
        add_with_bias(f"blk.{layer}.ffn_up", inner, width)
        add_with_bias(f"blk.{layer}.ffn_down", width, inner)
        add_with_bias(f"blk.{layer}.layer_output_norm", width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantize(source: Path, target: Path, file_type: int) -> Path:
    from backends.llamacpp.binding import L, log

    log.install()
    params = L.llama_model_quantize_default_params()
    params.ftype, params.nthread = file_type, 1
    done = L.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params))
    assert done == 0
    return target


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="session")
def tiny(model_folder: Path) -> Path:
    return write_model(model_folder / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_q8(model_folder: Path, tiny: Path) -> Path:
    from backends.llamacpp.binding import L

    return quantize(tiny, model_folder / "tiny-q8_0.gguf", L.LLAMA_FTYPE_MOSTLY_Q8_0)


@pytest.fixture(scope="session")
def tiny_embedder(model_folder: Path) -> Path:
    return write_model(model_folder / "embedder.gguf", pooling=1, context=256)


@pytest.fixture(scope="session")
def tiny_ranker(model_folder: Path) -> Path:
    return write_encoder(model_folder / "ranker.gguf", pooling=4)


@pytest.fixture(scope="session")
def tiny_encoder(model_folder: Path) -> Path:
    return write_encoder(model_folder / "encoder.gguf")


@pytest.fixture(scope="session")
def tiny_recurrent(model_folder: Path) -> Path:
    return write_recurrent(model_folder / "recurrent.gguf")


OpenEngine = Callable[..., Any]


@pytest.fixture
def open_engine() -> OpenEngine:
    """`async with open_engine(path, option=...) as engine`."""
    from backends.llamacpp.start import load

    @asynccontextmanager
    async def opened(path: Path, **options: Any) -> AsyncIterator[Any]:
        engine = load({"model": "tiny", "path": str(path), "threads": 1} | options, lambda _: None)
        try:
            yield engine
        finally:
            await engine.close()

    return opened
