"""Tiny random projectors, written here, images for them, and what libmtmd itself answers to both."""

from __future__ import annotations

import ctypes
import struct
import zlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np

MARKER = "<image>"
WIDTH = 64  # of the tiny text model
INNER, LAYERS, HEADS, PATCH = 32, 2, 2, 8


def png(seed: int, width: int = 48, height: int = 48) -> bytes:
    """A picture of random patches."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    pixels = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def part(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            part(b"IHDR", header),
            part(b"IDAT", zlib.compress(rows)),
            part(b"IEND", b""),
        ]
    )


def write_projector(path: Path, kind: str, *, side: int = 48, width: int = WIDTH) -> Path:
    """`mlp`: LLaVA's, (side / 8)² rows an image; `tiles`: the same, of an image in tiles; `gemma3`: a quarter of them, which look at each other;
    `qwen2vl_merger`: as many as the picture is large, at positions of rows and columns."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp" if kind == "tiles" else kind)
    for key, value in (
        ("embedding_length", INNER),
        ("feed_forward_length", 2 * INNER),
        ("block_count", LAYERS),
        ("projection_dim", width),
        ("attention.head_count", HEADS),
        ("image_size", side),
        ("patch_size", PATCH),
    ):
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_bool("clip.use_gelu", True)
    random = np.random.default_rng(11)

    def add(name: str, *shape: int, scale: float = 0.4) -> None:
        writer.add_tensor(name, random.normal(0, scale, shape).astype(np.float32))

    def add_with_bias(name: str, *shape: int) -> None:
        add(f"{name}.weight", *shape)
        add(f"{name}.bias", shape[0])

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(INNER, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(INNER, np.float32))

    add("v.patch_embd.weight", INNER, 3, PATCH, PATCH)
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            add_with_bias(f"v.blk.{layer}.{part}", INNER, INNER)
        add_norm(f"v.blk.{layer}.ln1")
        add_norm(f"v.blk.{layer}.ln2")
        add_with_bias(f"v.blk.{layer}.ffn_up", 2 * INNER, INNER)
        add_with_bias(f"v.blk.{layer}.ffn_down", INNER, 2 * INNER)
    match kind:
        case "mlp" | "tiles":
            if kind == "tiles":
                sizes = [side, 2 * side, 2 * side, side, 2 * side, 2 * side]
                writer.add_array("clip.vision.image_grid_pinpoints", sizes)
            writer.add_uint32("clip.vision.projector.scale_factor", 1)
            add("v.position_embd.weight", (side // PATCH) ** 2, INNER)
            add_with_bias("mm.0", width, INNER)
            add_with_bias("mm.2", width, width)
        case "gemma3":
            writer.add_uint32("clip.vision.projector.scale_factor", 2)
            add("v.patch_embd.bias", INNER)
            add("v.position_embd.weight", (side // PATCH) ** 2, INNER)
            add_norm("v.post_ln")
            add("mm.input_projection.weight", INNER, width)
            add("mm.soft_emb_norm.weight", INNER)
        case "qwen2vl_merger":
            writer.add_uint32("clip.vision.spatial_merge_size", 2)
            add("v.patch_embd.weight.1", INNER, 3, PATCH, PATCH)
            add_norm("v.post_ln")
            add_with_bias("mm.0", 4 * INNER, 4 * INNER)
            add_with_bias("mm.2", width, 4 * INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def answer_by_libmtmd(
    model: Path, projector: Path, parts: list[str | bytes], count: int
) -> tuple[list[int], list[np.ndarray[Any, Any]]]:
    """Greedy tokens (never one that ends an answer) and the logits they are of: one sequence, libmtmd's
    own way through the prompt."""
    from backends.llamacpp.binding import L, import_declarations, log

    M = import_declarations("mtmd_cpp")
    log.install()
    M.mtmd_helper_log_set(log.callback, None)
    L.llama_backend_init()
    loaded = L.llama_model_load_from_file(bytes(model), L.llama_model_default_params())
    params = L.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads = 2048, 2048, 512, 1
    context = L.llama_init_from_model(loaded, params)
    chosen = M.mtmd_context_params_default()
    chosen.n_threads, chosen.use_gpu = 1, False
    seer = M.mtmd_init_from_file(bytes(projector), loaded, chosen)
    text = "".join(MARKER if isinstance(part, bytes) else part for part in parts)
    text = text.replace(MARKER, M.mtmd_default_marker().decode())
    bitmaps = []
    for part in parts:
        if isinstance(part, bytes):
            buffer = (ctypes.c_uint8 * len(part)).from_buffer_copy(part)
            bitmaps.append(M.mtmd_helper_bitmap_init_from_buf(seer, buffer, len(part), False))
    chunks = M.mtmd_input_chunks_init()
    given = M.mtmd_input_text(text.encode(), len(text.encode()), False, True)
    array = (ctypes.c_void_p * len(bitmaps))(*bitmaps)
    assert M.mtmd_tokenize(seer, chunks, ctypes.byref(given), array, len(bitmaps)) == 0
    past = L.llama_pos(0)
    done = M.mtmd_helper_eval_chunks(seer, context, chunks, 0, 0, 2048, True, ctypes.byref(past))
    assert done == 0
    tokens: list[int] = []
    rows: list[np.ndarray[Any, Any]] = []
    vocabulary = L.llama_model_get_vocab(loaded)
    num_vocab = L.llama_vocab_n_tokens(vocabulary)
    ends = [token for token in range(num_vocab) if L.llama_vocab_is_eog(vocabulary, token)]
    position = past.value
    for _ in range(count):
        logits = L.llama_get_logits_ith(context, -1)
        rows.append(np.ctypeslib.as_array(logits, (num_vocab,)).copy())
        rows[-1][ends] = -np.inf
        tokens.append(int(rows[-1].argmax()))
        batch = L.llama_batch_init(1, 0, 1)
        batch.n_tokens = 1
        batch.token[0], batch.pos[0], batch.logits[0] = tokens[-1], position, 1
        batch.n_seq_id[0], batch.seq_id[0][0] = 1, 0
        assert L.llama_decode(context, batch) == 0
        L.llama_batch_free(batch)
        position += 1
    M.mtmd_input_chunks_free(chunks)
    for bitmap in bitmaps:
        M.mtmd_bitmap_free(bitmap)
    M.mtmd_free(seer)
    L.llama_free(context)
    L.llama_model_free(loaded)
    return tokens, rows
