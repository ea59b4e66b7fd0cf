"""Gemma 1 to 3, text only."""

from __future__ import annotations

from typing import Any

from backends.paged.architectures.common import (
    IMAGES,
    LLAMA,
    activation,
    language_model,
    layers,
    llama_like,
    rope,
    windows,
)
from backends.paged.architectures.config import Config
from backends.paged.spec import Activation, LayerSpec, ModelSpec, NormSpec
from backends.paged.weights import Names

SANDWICH = {
    **LLAMA,
    "attention_post_norm": ("post_attention_layernorm",),
    "mlp_norm": ("pre_feedforward_layernorm",),
    "mlp_post_norm": ("post_feedforward_layernorm",),
}
NAMES = Names(SANDWICH)
BESIDE_IMAGES = Names(SANDWICH, ignored=IMAGES)

# Published files leave out what is as their authors' code had it.
GEMMA2 = {
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
}
GEMMA3 = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "hidden_activation": "gelu_pytorch_tanh",
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
}


def gemma(config: Config) -> tuple[ModelSpec, Names]:
    return _spec(config.but(hidden_activation="gelu_pytorch_tanh")), Names(LLAMA)


def gemma2(config: Config) -> tuple[ModelSpec, Names]:
    config = config.over(GEMMA2)
    sizes = windows(config, lambda layer: layer % 2 == 0)
    return _spec(config, layers=layers(config, sizes), **_from_second(config)), NAMES


def gemma3(config: Config) -> tuple[ModelSpec, Names]:
    """Layers with a window have a rope of their own, which is never stretched."""
    config = config.over(GEMMA3)
    every = config.integer("sliding_window_pattern", config.integer("_sliding_window_pattern", 6))
    sizes = windows(config, lambda layer: (layer + 1) % every != 0)
    local = config.but(rope_scaling=None, rope_theta=config.number("rope_local_base_freq"))
    spec = _spec(
        config,
        layers=tuple(LayerSpec(window=size, rope=1 if size else 0) for size in sizes),
        ropes=(rope(config, "full_attention"), rope(local, "sliding_attention")),
        qk_norm="head",
        **_from_second(config),
    )
    return spec, NAMES


def gemma3_beside_images(config: Config) -> tuple[ModelSpec, Names]:
    """The language model of one that also sees."""
    return gemma3(language_model(config, "gemma3_text", is_tied=True))[0], BESIDE_IMAGES


def _spec(config: Config, **differences: Any) -> ModelSpec:
    bias = config.flag("attention_bias")
    return llama_like(
        config,
        norm=NormSpec(eps=config.positive("rms_norm_eps"), unit_offset=True),
        activation=Activation(activation(config, "hidden_activation")),
        embedding_scale=config.integer("hidden_size") ** 0.5,
        qkv_bias=bias,
        out_bias=bias,
        is_tied=config.flag("tie_word_embeddings", True),
        **differences,
    )


def _from_second(config: Config) -> dict[str, Any]:
    return {
        "norm_placement": "sandwich",
        "attention_scale": config.positive("query_pre_attn_scalar") ** -0.5,
        "attention_softcap": config.number("attn_logit_softcapping", 0.0),
        "logits_softcap": config.number("final_logit_softcapping", 0.0),
    }
