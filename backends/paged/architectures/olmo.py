"""Olmo 2 and 3: norms after attention and MLP instead of before, and over all heads of queries and keys at
once."""

from __future__ import annotations

from typing import Any

from backends.paged.architectures.common import LLAMA, llama_like, rope, windows
from backends.paged.architectures.config import Config
from backends.paged.spec import LayerSpec, ModelSpec
from backends.paged.weights import Names

NAMES = Names(
    {
        **LLAMA,
        "attention_post_norm": ("post_attention_layernorm",),
        "mlp_post_norm": ("post_feedforward_layernorm",),
    }
)


def olmo2(config: Config) -> tuple[ModelSpec, Names]:
    return _spec(config), NAMES


def olmo3(config: Config) -> tuple[ModelSpec, Names]:
    """Three layers of four have windows, and a rope that is not stretched."""
    config = config.over({"sliding_window": 4096})
    sizes = windows(config, lambda layer: (layer + 1) % 4 != 0)
    local = config.but(rope_scaling=None)
    spec = _spec(
        config,
        layers=tuple(LayerSpec(window=size, rope=1 if size else 0) for size in sizes),
        ropes=(
            rope(config, "full_attention", theta=500000.0),
            rope(local, "sliding_attention", theta=500000.0),
        ),
    )
    return spec, NAMES


def _spec(config: Config, **differences: Any) -> ModelSpec:
    bias = config.flag("attention_bias")
    return llama_like(
        config,
        norm_placement="post",
        qk_norm="width",
        qkv_bias=bias,
        out_bias=bias,
        **differences,
    )
