"""Llama, and what differs from it by a few settings."""

from __future__ import annotations

from backends.paged.architectures.common import LLAMA, layers, llama_like, window_everywhere
from backends.paged.architectures.config import Config
from backends.paged.spec import ModelSpec
from backends.paged.weights import Names

NAMES = Names(LLAMA)


def llama(config: Config) -> tuple[ModelSpec, Names]:
    bias = config.flag("attention_bias")
    spec = llama_like(config, qkv_bias=bias, out_bias=bias, mlp_bias=config.flag("mlp_bias"))
    return spec, NAMES


def mistral(config: Config) -> tuple[ModelSpec, Names]:
    return llama_like(config, layers=layers(config, window_everywhere(config))), NAMES
