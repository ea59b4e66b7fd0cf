"""Models whose rope pairs neighbouring dimensions: Ernie 4.5, GLM 4, and Cohere's Command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backends.paged.architectures.common import LLAMA, llama_like, rope, windows
from backends.paged.architectures.config import Config
from backends.paged.spec import LayerSpec, ModelSpec, NormSpec
from backends.paged.weights import Interleaved, Names
from backends.serving.engine import EngineError

QKV = LLAMA["attention.qkv"]
GLM = {**LLAMA, "mlp.gate_up": ("mlp.gate_up_proj",)}
GLM4 = {
    **GLM,
    "attention_post_norm": ("post_self_attn_layernorm",),
    "mlp_post_norm": ("post_mlp_layernorm",),
}


def ernie4_5(config: Config) -> tuple[ModelSpec, Names]:
    bias = config.flag("use_bias")
    spec = llama_like(
        config.over({"head_dim": 128}),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=bias,
        is_tied=config.flag("tie_word_embeddings", True),
        ropes=(rope(config.over({"head_dim": 128}), theta=500000.0),),
    )
    return spec, _names(LLAMA, spec)


def glm(config: Config) -> tuple[ModelSpec, Names]:
    spec = _glm(config)
    return spec, _names(GLM, spec)


def glm4(config: Config) -> tuple[ModelSpec, Names]:
    spec = _glm(config, norm_placement="sandwich")
    return spec, _names(GLM4, spec)


def cohere(config: Config) -> tuple[ModelSpec, Names]:
    if config.flag("use_qk_norm"):
        raise EngineError("unsupported", f"{config.name}: use_qk_norm is not supported")
    spec = _cohere(config, ropes=(rope(config, theta=500000.0),))
    return spec, _names(LLAMA, spec)


def cohere2(config: Config) -> tuple[ModelSpec, Names]:
    """Layers that see everything have no positions."""
    config = config.over({"sliding_window": 4096})
    every = config.integer("sliding_window_pattern", 4)
    sizes = windows(config, lambda layer: (layer + 1) % every != 0)
    spec = _cohere(
        config, layers=tuple(LayerSpec(window=size, rope=0 if size else None) for size in sizes)
    )
    return spec, _names(LLAMA, spec)


def _glm(config: Config, **differences: Any) -> ModelSpec:
    """Half of each head is rotated."""
    config = config.over({"head_dim": 128, "partial_rotary_factor": 0.5})
    return llama_like(config, qkv_bias=config.flag("attention_bias", True), **differences)


def _cohere(config: Config, **differences: Any) -> ModelSpec:
    """Attention and MLP beside each other, after one layer norm."""
    bias = config.flag("attention_bias")
    return llama_like(
        config,
        norm=NormSpec("layer", eps=config.positive("layer_norm_eps", 1e-5)),
        norm_placement="parallel",
        qkv_bias=bias,
        out_bias=bias,
        logits_scale=config.positive("logit_scale", 0.0625),
        is_tied=config.flag("tie_word_embeddings", True),
        **differences,
    )


def _names(modules: Mapping[str, Sequence[str]], spec: ModelSpec) -> Names:
    head_dim, rotated = spec.head_dim, spec.ropes[0].dim
    return Names(
        modules,
        sources={
            f"attention.qkv.{leaf}": Interleaved([f"{n}.{leaf}" for n in QKV], head_dim, rotated)
            for leaf in ("weight", "bias")
        },
    )
