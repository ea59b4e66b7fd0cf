"""Starcoder 2: layer norms, biases everywhere, an MLP without a gate."""

from __future__ import annotations

from backends.paged.architectures.common import (
    LLAMA,
    activation,
    layers,
    llama_like,
    window_everywhere,
)
from backends.paged.architectures.config import Config
from backends.paged.spec import Activation, ModelSpec, NormSpec
from backends.paged.weights import Names

NAMES = Names({**LLAMA, "mlp.gate_up": ("mlp.c_fc",), "mlp.down": ("mlp.c_proj",)})


def starcoder2(config: Config) -> tuple[ModelSpec, Names]:
    bias = config.flag("use_bias", True)
    spec = llama_like(
        config,
        norm=NormSpec("layer", eps=config.positive("norm_epsilon", 1e-5), bias=True),
        activation=Activation(activation(config), is_gated=False),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        is_tied=config.flag("tie_word_embeddings", True),
        layers=layers(config, window_everywhere(config)),
    )
    return spec, NAMES
