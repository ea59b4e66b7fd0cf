"""Phi 3 and 4: llama, fused on disk."""

from __future__ import annotations

from backends.paged.architectures.common import LLAMA, layers, llama_like, window_everywhere
from backends.paged.architectures.config import Config
from backends.paged.spec import ModelSpec
from backends.paged.weights import Names

NAMES = Names(
    {
        **LLAMA,
        "attention.qkv": ("self_attn.qkv_proj",),
        "mlp.gate_up": ("mlp.gate_up_proj",),
    }
)


def phi3(config: Config) -> tuple[ModelSpec, Names]:
    config = config.over({"original_max_position_embeddings": 4096})
    return llama_like(config, layers=layers(config, window_everywhere(config))), NAMES
