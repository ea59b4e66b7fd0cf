"""Olmo 2: norms after attention and MLP instead of before, and over all heads of queries and keys at once."""

from __future__ import annotations

from backends.paged.architectures.common import LLAMA, llama_like
from backends.paged.architectures.config import Config
from backends.paged.spec import ModelSpec
from backends.paged.weights import Names

NAMES = Names(
    {
        **LLAMA,
        "attention_post_norm": ("post_attention_layernorm",),
        "mlp_post_norm": ("post_feedforward_layernorm",),
    }
)


def olmo2(config: Config) -> tuple[ModelSpec, Names]:
    bias = config.flag("attention_bias")
    spec = llama_like(config, norm_placement="post", qk_norm="width", qkv_bias=bias, out_bias=bias)
    return spec, NAMES
