"""Models whose rope pairs neighbouring dimensions: Ernie 4.5 and GLM 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backends.paged.architectures.common import LLAMA, llama_like, rope
from backends.paged.architectures.config import Config
from backends.paged.spec import ModelSpec
from backends.paged.weights import Interleaved, Names

QKV = LLAMA["attention.qkv"]
GLM4 = {
    **LLAMA,
    "attention_post_norm": ("post_self_attn_layernorm",),
    "mlp_norm": ("post_attention_layernorm",),
    "mlp_post_norm": ("post_mlp_layernorm",),
    "mlp.gate_up": ("mlp.gate_up_proj",),
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


def glm4(config: Config) -> tuple[ModelSpec, Names]:
    """Half of each head is rotated."""
    config = config.over({"head_dim": 128, "partial_rotary_factor": 0.5})
    bias = config.flag("attention_bias", True)
    spec = llama_like(config, norm_placement="sandwich", qkv_bias=bias)
    return spec, _names(GLM4, spec)


def _names(modules: Mapping[str, Sequence[str]], spec: ModelSpec) -> Names:
    head_dim, rotated = spec.head_dim, spec.ropes[0].dim
    return Names(
        modules,
        sources={
            f"attention.qkv.{leaf}": Interleaved([f"{n}.{leaf}" for n in QKV], head_dim, rotated)
            for leaf in ("weight", "bias")
        },
    )
