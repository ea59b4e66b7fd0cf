"""What one decoder-only transformer computes, as plain values: all that the decoder is told of a model.

An architecture makes a `ModelSpec` out of a checkpoint's config.json; the decoder reads nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary positions. `kind` names how the frequencies are stretched, by `parameters` as in config.json."""

    theta: float
    dim: int  # dimensions of a head that are rotated, the first ones
    kind: str = "default"  # default, linear, dynamic, llama3, yarn, longrope
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_position: int = 0  # positions the model was trained for, as config.json says


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What differs from layer to layer."""

    window: int = 0  # tokens that a token sees, itself included; 0: all
    rope: int | None = 0  # index into ModelSpec.ropes; None: no positions
    has_experts: bool = False


@dataclass(frozen=True, slots=True)
class NormSpec:
    kind: Literal["rms", "layer"] = "rms"
    eps: float = 1e-6
    unit_offset: bool = False  # scales by 1 + weight
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """Between the two products of an MLP. Gated: act(gate) * up, both of the first product."""

    kind: Literal["silu", "gelu", "gelu_tanh", "relu2", "clamped_swiglu"] = "silu"
    is_gated: bool = True
    limit: float = 0.0  # clamped_swiglu: both factors are clamped by it
    alpha: float = 0.0  # clamped_swiglu: inside the sigmoid


@dataclass(frozen=True, slots=True)
class ExpertsSpec:
    count: int
    per_token: int
    intermediate_size: int
    normalized: bool = True  # the chosen experts' weights sum to 1
    router_bias: bool = False
    bias: bool = False


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model. Sizes count elements, scales multiply, and a softcap of 0 is none."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context: int  # tokens it was trained for
    layers: tuple[LayerSpec, ...]
    ropes: tuple[RopeSpec, ...]
    norm: NormSpec = NormSpec()
    norm_placement: Literal["pre", "post", "sandwich", "parallel"] = "pre"
    activation: Activation = Activation()
    qk_norm: Literal["", "head", "width"] = ""  # none, over each head, over all heads at once
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    sinks: bool = False
    experts: ExpertsSpec | None = None
    attention_scale: float = 0.0
    attention_softcap: float = 0.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logits_scale: float = 1.0
    logits_softcap: float = 0.0
    is_tied: bool = False  # the head is the embedding

    @property
    def num_layers(self) -> int:
        return len(self.layers)
