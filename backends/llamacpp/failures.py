"""Why llama.cpp would not load a model, as one sentence of the contract's."""

from __future__ import annotations

import os
import re

from backends.llamacpp import gguf_file
from backends.serving.engine import EngineError

# What llama.cpp logs when a load fails -> the contract's kind, and a sentence. First match wins.
FAILURES: tuple[tuple[str, str, str], ...] = (
    (
        r"unknown model architecture: '([^']*)'",
        "unsupported",
        "its architecture, {0}, is not supported",
    ),
    (
        r"unknown pre-tokenizer type: '([^']*)'",
        "unsupported",
        "its tokenizer, {0}, is not supported",
    ),
    (r"unknown tokenizer: '([^']*)'", "unsupported", "its tokenizer, {0}, is not supported"),
    (r"invalid ggml type|unknown type", "unsupported", "its quantisation is not supported"),
    (r"out of memory|OutOfDeviceMemory", "out_of_memory", "there is not enough memory for it"),
    (r"(failed|unable) to allocate", "out_of_memory", "there is not enough memory for it"),
    (r"bad_alloc|cannot allocate", "out_of_memory", "there is not enough memory for it"),
    (r"mlock", "out_of_memory", "it cannot be locked into memory"),
    (r"missing tensor '([^']*)'", "bad_file", "the tensor {0} is missing"),
    (r"tensor '([^']*)' not found", "bad_file", "the tensor {0} is missing"),
    (r"tensor '([^']*)' has wrong shape", "bad_file", "the tensor {0} has the wrong shape"),
    (r"wrong number of tensors", "bad_file", "it does not hold the tensors its architecture needs"),
    (r"key not found in model: (\S+)", "bad_file", "its header lacks {0}"),
    (
        r"does not divide n_embd_head",
        "bad_options",
        "cache_type_k or cache_type_v does not suit it",
    ),
    (r"quantized V cache", "bad_options", "cache_type_v needs flash_attention"),
    (
        r"does not support different K",
        "bad_options",
        "cache_type_k and cache_type_v must be the same",
    ),
    (
        r"text model \(n_embd = (\d+)\) and mmproj \(n_embd = (\d+)\)",
        "bad_options",
        "it is the projector of another model (its rows have {1} numbers, this model's {0})",
    ),
    (r"image_max_pixels .* is less than", "bad_options", "image_tokens is less than it needs"),
    (r"unknown projector type: (\S+)", "unsupported", "its kind, {0}, is not supported"),
    (r"invalid split|illegal split", "bad_file", "its parts do not belong together"),
)


def classified(path: str, lines: list[str]) -> EngineError:
    """Why llama.cpp refused the file, from what it logged and from the file itself."""
    name = os.path.basename(path)
    text = "".join(lines)
    if re.search(
        r"not within the file bounds|failed to read|read error|unexpectedly reached", text
    ):
        truncation = gguf_file.truncation(path)
        if truncation:
            return EngineError("bad_file", truncation)
    for pattern, kind, sentence in FAILURES:
        match = re.search(pattern, text, re.IGNORECASE)
        if match:
            return EngineError(kind, f"{name} cannot be loaded: {sentence.format(*match.groups())}")
    truncation = gguf_file.truncation(path)
    if truncation:
        return EngineError("bad_file", truncation)
    return EngineError("bad_file", f"{name} cannot be loaded: {_last_complaint(lines)}")


def _last_complaint(lines: list[str]) -> str:
    for line in reversed(lines):
        match = re.search(r"error[^:]*: (.+)", line)
        if match:
            return match[1].strip()[:200]
    return "llama.cpp gives no reason"
