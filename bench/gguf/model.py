"""A model of Qwen2.5-0.5B's shape with random weights, made here: speed depends on shape, not on sense.

24 layers of width 896, 14 heads over 2 key-value heads, 151 936 tokens, embeddings tied; written as f16,
then quantised by llama.cpp. The vocabulary is a byte-level BPE of the real size, made up of two- and
three-byte merges, unless `vocab` names a GGUF to copy the tokenizer from.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np

import gguf

WIDTH, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 896, 4864, 24, 14, 2, 151_936
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(folder: Path, quantization: str = "Q4_K_M", vocab: Path | None = None) -> Path:
    """The model's path; written first where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "qwen2.5-0.5b-shape" + (f"-{vocab.stem}" if vocab else "")
    target = folder / f"{stem}-{quantization}.gguf"
    if not target.exists():
        print(f"making {target.name} (once)", file=sys.stderr, flush=True)
        source = folder / f"{stem}-f16.gguf"
        _write(source, vocab)
        _quantize(source, target, quantization)
        source.unlink()
    return target


def _write(path: Path, vocab: Path | None) -> None:
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("random weights, shape of Qwen2.5-0.5B")
    writer.add_context_length(32_768)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    if vocab is None:
        _add_vocabulary(writer)
    else:
        _copy_vocabulary(writer, vocab)
    for name, array in _tensors():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors() -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    noise = random.standard_normal(VOCABULARY * WIDTH, np.float32)
    noise = (noise * np.float32(0.02)).astype(np.float16)

    def weight(rows: int, columns: int) -> np.ndarray:
        start = int(random.integers(0, len(noise) - rows * columns + 1))
        return noise[start : start + rows * columns].reshape(rows, columns)

    yield "token_embd.weight", weight(VOCABULARY, WIDTH)
    yield "output_norm.weight", np.ones(WIDTH, np.float32)
    kv_width = WIDTH * KV_HEADS // HEADS
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            yield f"{block}.{norm}.weight", np.ones(WIDTH, np.float32)
        for part, width in (("q", WIDTH), ("k", kv_width), ("v", kv_width)):
            yield f"{block}.attn_{part}.weight", weight(width, WIDTH)
            yield f"{block}.attn_{part}.bias", np.zeros(width, np.float32)
        yield f"{block}.attn_output.weight", weight(WIDTH, WIDTH)
        yield f"{block}.ffn_gate.weight", weight(INNER, WIDTH)
        yield f"{block}.ffn_up.weight", weight(INNER, WIDTH)
        yield f"{block}.ffn_down.weight", weight(WIDTH, INNER)


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    count = VOCABULARY - 256 - len(SPECIAL)
    merges = list(islice(_merges(), count))
    tokens = [*_byte_symbols(), *(left + right for left, right in merges), *SPECIAL]
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([normal] * (VOCABULARY - len(SPECIAL)) + [control] * len(SPECIAL))
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_bos_token_id(VOCABULARY - 3)
    writer.add_eos_token_id(VOCABULARY - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _merges() -> Iterator[tuple[str, str]]:
    """Every pair of bytes, then pairs with a third, common letters first."""
    symbols = _byte_symbols()
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    ordered = [*letters, "Ġ", *(symbol for symbol in symbols if symbol not in {*letters, "Ġ"})]
    yield from product(ordered, ordered)
    for left, middle, right in product(ordered[:45], repeat=3):
        yield left + middle, right


def _byte_symbols() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    stand_ins = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256)]


def _copy_vocabulary(writer: gguf.GGUFWriter, source: Path) -> None:
    for field in gguf.GGUFReader(source).fields.values():
        if field.name.startswith("tokenizer."):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)


def _quantize(source: Path, target: Path, quantization: str) -> None:
    from backends.llamacpp.binding import L, log

    log.install()
    params = L.llama_model_quantize_default_params()
    params.ftype = getattr(L, f"LLAMA_FTYPE_MOSTLY_{quantization}")
    partial = target.with_suffix(".partial")
    if L.llama_model_quantize(bytes(source), bytes(partial), ctypes.byref(params)) != 0:
        raise SystemExit(f"llama.cpp could not quantise {source}")
    partial.rename(target)
