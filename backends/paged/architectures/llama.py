"""Llama, and what differs from it by a few settings."""

from __future__ import annotations

from backends.paged.architectures.common import (
    IMAGES,
    LLAMA,
    language_model,
    layers,
    llama_like,
    num_layers,
    rope,
    window_everywhere,
    windows,
)
from backends.paged.architectures.config import Config
from backends.paged.spec import LayerSpec, ModelSpec
from backends.paged.weights import Names

NAMES = Names(LLAMA)
BESIDE_IMAGES = Names(LLAMA, ignored=IMAGES)


def llama(config: Config) -> tuple[ModelSpec, Names]:
    bias = config.flag("attention_bias")
    mlp_bias = config.flag("mlp_bias")
    return llama_like(config, qkv_bias=bias, out_bias=bias, mlp_bias=mlp_bias), NAMES


def mistral(config: Config) -> tuple[ModelSpec, Names]:
    return llama_like(config, layers=layers(config, window_everywhere(config))), NAMES


def mistral_beside_images(config: Config) -> tuple[ModelSpec, Names]:
    """The language model of one that also sees."""
    return mistral(language_model(config, "mistral", is_tied=False))[0], BESIDE_IMAGES


def seed_oss(config: Config) -> tuple[ModelSpec, Names]:
    spec = llama_like(
        config.over({"head_dim": 128}),
        qkv_bias=config.flag("attention_bias", True),
        out_bias=config.flag("attention_out_bias"),
        mlp_bias=config.flag("mlp_bias"),
    )
    return spec, NAMES


def granite(config: Config) -> tuple[ModelSpec, Names]:
    bias = config.flag("attention_bias")
    spec = llama_like(
        config,
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=config.flag("mlp_bias"),
        attention_scale=config.positive("attention_multiplier", 1.0),
        embedding_scale=config.positive("embedding_multiplier", 1.0),
        residual_scale=config.positive("residual_multiplier", 1.0),
        logits_scale=1.0 / config.positive("logits_scaling", 1.0),
    )
    return spec, NAMES


def smollm3(config: Config) -> tuple[ModelSpec, Names]:
    """Every so many layers have no positions; their list says 1 where there are some."""
    count, bias = num_layers(config), config.flag("attention_bias")
    every = config.integer("no_rope_layer_interval", 4)
    has_rope = config.array("no_rope_layers", [(i + 1) % every != 0 for i in range(count)])
    if len(has_rope) != count:
        raise config.wrong("no_rope_layers", f"as long as num_hidden_layers, {count}")
    is_windowed = config.flag("use_sliding_window") and "sliding_window" in config
    sizes = windows(config, lambda i: not has_rope[i]) if is_windowed else [0] * count
    spec = llama_like(
        config,
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=config.flag("mlp_bias"),
        is_tied=config.flag("tie_word_embeddings", True),
        ropes=(rope(config, theta=2000000.0),),
        layers=tuple(LayerSpec(w, 0 if r else None) for w, r in zip(sizes, has_rope, strict=True)),
    )
    return spec, NAMES
