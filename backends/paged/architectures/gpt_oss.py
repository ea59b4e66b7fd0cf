"""gpt-oss: experts with biases, attention sinks, windows on every other layer; published in MXFP4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from backends.paged import mxfp4
from backends.paged.architectures.common import LLAMA, experts, layers, llama_like, rope, windows
from backends.paged.architectures.config import Config
from backends.paged.spec import Activation, ModelSpec
from backends.paged.weights import Names, Read, Rows, Shape, Wanted

THETA = 150000.0
ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def gpt_oss(config: Config) -> tuple[ModelSpec, Names]:
    bias = config.flag("attention_bias", True)
    if "rope_parameters" not in config and "rope_scaling" not in config:
        config = config.but(rope_scaling=ROPE)
    sizes = windows(config, lambda layer: layer % 2 == 0)
    spec = llama_like(
        config,
        qkv_bias=bias,
        out_bias=bias,
        sinks=True,
        ropes=(rope(config, theta=THETA),),
        layers=layers(config, sizes, has_experts=True),
        activation=Activation(
            "clamped_swiglu",
            limit=config.positive("swiglu_limit", 7.0),
            alpha=config.number("swiglu_alpha", 1.702),
        ),
        experts=experts(
            config,
            config.integer("num_local_experts"),
            intermediate_size=config.integer("intermediate_size"),
            router_bias=True,
            bias=True,
        ),
    )
    return spec, _names(is_packed="quantization_config" in config)


def _names(is_packed: bool) -> Names:
    weights = Packed if is_packed else Plain
    return Names(
        {**LLAMA, "mlp.router": ("mlp.router",)},
        sources={
            "attention.sinks": Rows(("self_attn.sinks",)),
            "mlp.expert_gate_up.weight": weights("mlp.experts.gate_up_proj"),
            "mlp.expert_gate_up.bias": Biases("mlp.experts.gate_up_proj_bias"),
            "mlp.expert_down.weight": weights("mlp.experts.down_proj"),
            "mlp.expert_down.bias": Biases("mlp.experts.down_proj_bias"),
        },
    )


def _by_expert(target: Tensor, parts: Sequence[int]) -> Iterator[Tensor]:
    """Each expert's plane with its rows in the checkpoint's order, where those of several parts alternate."""
    for plane in target:
        rows = plane.unflatten(0, (len(parts), parts[0])).transpose(0, 1)
        yield rows


@dataclass(frozen=True, slots=True)
class Biases:
    """[experts, out]."""

    name: str

    def expects(self, shape: Shape, parts: Sequence[int]) -> Mapping[str, Wanted]:
        return {self.name: Wanted(shape)}

    def fill(self, target: Tensor, parts: Sequence[int], read: Read) -> None:
        for rows, values in zip(_by_expert(target, parts), read(self.name), strict=True):
            rows.copy_(values.view(rows.shape))


@dataclass(frozen=True, slots=True)
class Plain:
    """[experts, in, out]."""

    name: str

    def expects(self, shape: Shape, parts: Sequence[int]) -> Mapping[str, Wanted]:
        count, height, width = shape
        return {self.name: Wanted((count, width, height))}

    def fill(self, target: Tensor, parts: Sequence[int], read: Read) -> None:
        for rows, values in zip(_by_expert(target, parts), read(self.name), strict=True):
            rows.copy_(values.t().unflatten(0, rows.shape[:2]))


@dataclass(frozen=True, slots=True)
class Packed:
    """[experts, out, in] in MXFP4."""

    name: str

    def expects(self, shape: Shape, parts: Sequence[int]) -> Mapping[str, Wanted]:
        count, height, width = shape
        groups = -(-width // mxfp4.GROUP)
        return {
            f"{self.name}_blocks": Wanted((count, height, groups, mxfp4.GROUP // 2), ("U8",)),
            f"{self.name}_scales": Wanted((count, height, groups), ("U8",)),
        }

    def fill(self, target: Tensor, parts: Sequence[int], read: Read) -> None:
        blocks, scales = read(f"{self.name}_blocks"), read(f"{self.name}_scales")
        for expert, rows in enumerate(_by_expert(target, parts)):
            values = mxfp4.expand(blocks[expert], scales[expert], target.dtype)
            rows.copy_(values.view(rows.shape))
