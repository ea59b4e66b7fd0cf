"""Qwen 2 and 3, and 3's mixtures of experts."""

from __future__ import annotations

from backends.paged.architectures.common import (
    LLAMA,
    experts,
    layers,
    llama_like,
    num_layers,
    window_everywhere,
    windows,
)
from backends.paged.architectures.config import Config
from backends.paged.spec import LayerSpec, ModelSpec
from backends.paged.weights import Names

NAMES = Names(LLAMA)
MOE_NAMES = Names(
    {
        **LLAMA,
        "mlp.router": ("mlp.gate",),
        "mlp.expert_gate_up": ("mlp.experts.{e}.gate_proj", "mlp.experts.{e}.up_proj"),
        "mlp.expert_down": ("mlp.experts.{e}.down_proj",),
    }
)


def qwen2(config: Config) -> tuple[ModelSpec, Names]:
    return llama_like(config, qkv_bias=True, layers=layers(config, _upper_windows(config))), NAMES


def qwen3(config: Config) -> tuple[ModelSpec, Names]:
    bias = config.flag("attention_bias")
    spec = llama_like(
        config.over({"head_dim": 128}),
        qk_norm="head",
        qkv_bias=bias,
        out_bias=bias,
        layers=layers(config, _upper_windows(config)),
    )
    return spec, NAMES


def qwen3_moe(config: Config) -> tuple[ModelSpec, Names]:
    """Some layers may have an ordinary MLP instead of experts."""
    bias = config.flag("attention_bias")
    dense = config.array("mlp_only_layers", [])
    step = config.integer("decoder_sparse_step", 1)
    sizes = window_everywhere(config) if config.flag("use_sliding_window") else []
    sizes = sizes or [0] * num_layers(config)
    spec = llama_like(
        config,
        qk_norm="head",
        qkv_bias=bias,
        out_bias=bias,
        layers=tuple(
            LayerSpec(window=size, has_experts=i not in dense and (i + 1) % step == 0)
            for i, size in enumerate(sizes)
        ),
        experts=experts(
            config,
            config.integer("num_experts", config.integer("num_local_experts", 128)),
            intermediate_size=config.integer("moe_intermediate_size"),
            normalized=config.flag("norm_topk_prob"),
        ),
    )
    return spec, MOE_NAMES


def _upper_windows(config: Config) -> list[int]:
    """Windows, where they are on, begin above some layer."""
    if not config.flag("use_sliding_window"):
        return []
    first = config.integer("max_window_layers", 28)
    return windows(config, lambda layer: layer >= first)
