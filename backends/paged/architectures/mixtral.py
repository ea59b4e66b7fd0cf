"""Mixtral: mistral with experts."""

from __future__ import annotations

from backends.paged.architectures.common import (
    LLAMA,
    experts,
    layers,
    llama_like,
    rope,
    window_everywhere,
)
from backends.paged.architectures.config import Config
from backends.paged.spec import ModelSpec
from backends.paged.weights import Names

EXPERT = "block_sparse_moe.experts.{e}"
NAMES = Names(
    {
        **LLAMA,
        "mlp.router": ("block_sparse_moe.gate",),
        "mlp.expert_gate_up": (f"{EXPERT}.w1", f"{EXPERT}.w3"),
        "mlp.expert_down": (f"{EXPERT}.w2",),
    }
)


def mixtral(config: Config) -> tuple[ModelSpec, Names]:
    spec = llama_like(
        config,
        ropes=(rope(config, theta=1000000.0),),
        layers=layers(config, window_everywhere(config), has_experts=True),
        experts=experts(
            config,
            config.integer("num_local_experts"),
            intermediate_size=config.integer("intermediate_size"),
        ),
    )
    return spec, NAMES
