"""What most architectures share: llama's layout, and the settings of rope and windows by all their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backends.paged.architectures.config import MAX_INTEGER, Config
from backends.paged.rope import KINDS
from backends.paged.spec import (
    Activation,
    ExpertsSpec,
    LayerSpec,
    ModelSpec,
    NormSpec,
    RopeSpec,
)
from backends.serving.engine import EngineError

MAX_LAYERS = 1024
MAX_EXPERTS = 1024

LLAMA: Mapping[str, Sequence[str]] = {
    "embedding": ("embed_tokens",),
    "norm": ("norm",),
    "head": ("lm_head",),
    "attention_norm": ("input_layernorm",),
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.q_norm": ("self_attn.q_norm",),
    "attention.k_norm": ("self_attn.k_norm",),
    "attention.out": ("self_attn.o_proj",),
    "mlp_norm": ("post_attention_layernorm",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
}

# Of models that also see: only their language model is served.
IMAGES = (r"(^|\.)vision_tower\.", r"(^|\.)multi_modal_projector\.")

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}
LAYER_TYPES = {"full_attention": False, "sliding_attention": True}
ROPE_KINDS = {kind: kind for kind in KINDS} | {"su": "longrope"}
ROPE_NEEDS: Mapping[str, Sequence[str]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
ROPE_NUMBERS = (
    "factor",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "beta_fast",
    "beta_slow",
    "low_freq_factor",
    "high_freq_factor",
)


def llama_like(config: Config, **differences: Any) -> ModelSpec:
    """The spec of a model laid out as llama is, but for `differences`: fields of ModelSpec."""
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise config.wrong("num_key_value_heads", f"a divisor of num_attention_heads, {heads}")
    spec: dict[str, Any] = {
        "architecture": config.text("architecture"),
        "vocab_size": config.integer("vocab_size"),
        "hidden_size": config.integer("hidden_size"),
        "intermediate_size": config.integer("intermediate_size"),
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim(config),
    }
    spec |= {field: read(config) for field, read in USUAL.items() if field not in differences}
    spec |= differences
    return ModelSpec(max_context=_max_context(config, spec["ropes"]), **spec)


def language_model(config: Config, model_type: str, *, is_tied: bool) -> Config:
    """Of a model that also sees, what its `text_config` says of the language model, which must be of that
    type. `is_tied`: whether the head is the embedding, where nothing says so."""
    inner = config.nested("text_config")
    inner.choice("model_type", {model_type: model_type}, model_type)
    tied = config.flag("tie_word_embeddings", is_tied)
    inner = inner.over({"tie_word_embeddings": tied})
    return inner.but(architecture=config.text("architecture"))


def head_dim(config: Config) -> int:
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    if "head_dim" not in config and hidden % heads:
        raise config.wrong("num_attention_heads", f"a divisor of hidden_size, {hidden}")
    dim = config.integer("head_dim", hidden // heads)
    if heads * dim > MAX_INTEGER:
        raise config.wrong("num_attention_heads", f"at most {MAX_INTEGER // dim}")
    return dim


def experts(config: Config, count: int, **differences: Any) -> ExpertsSpec:
    """What every mixture has, but for `differences`: fields of ExpertsSpec."""
    if count > MAX_EXPERTS:
        reason = f"{config.name}: {count} experts, and {MAX_EXPERTS} are the most"
        raise EngineError("bad_file", reason)
    per_token = config.integer("num_experts_per_tok")
    if per_token > count:
        raise config.wrong("num_experts_per_tok", f"at most {count}, the number of experts")
    return ExpertsSpec(count=count, per_token=per_token, **differences)


def activation(config: Config, key: str = "hidden_act") -> Any:
    return config.choice(key, ACTIVATIONS)


def layers(config: Config, windows: Sequence[int] = (), **common: Any) -> tuple[LayerSpec, ...]:
    """All layers, with their windows (default: each sees everything) and what else they share."""
    windows = windows or [0] * num_layers(config)
    return tuple(LayerSpec(window=window, **common) for window in windows)


def num_layers(config: Config) -> int:
    count = config.integer("num_hidden_layers")
    if count > MAX_LAYERS:
        raise config.wrong("num_hidden_layers", f"at most {MAX_LAYERS}")
    return count


def windows(config: Config, is_windowed: Callable[[int], bool]) -> list[int]:
    """Each layer's window: as `layer_types` says, or by `is_windowed(layer)` where it is absent."""
    count = num_layers(config)
    flags = [is_windowed(layer) for layer in range(count)]
    if "layer_types" in config:
        types = config.array("layer_types")
        if len(types) != count:
            raise config.wrong("layer_types", f"as long as num_hidden_layers, {count}")
        flags = [Config({"layer_types": t}).choice("layer_types", LAYER_TYPES) for t in types]
    return [config.integer("sliding_window") if flag else 0 for flag in flags]


def window_everywhere(config: Config) -> list[int]:
    """One window for all layers, if there is any."""
    return [config.integer("sliding_window", 0)] * num_layers(config)


def rope(config: Config, layer_type: str = "", theta: float = 10000.0) -> RopeSpec:
    """Rope by its new names (`rope_parameters`, by layer type or not) or its old ones (`rope_theta`,
    `rope_scaling`). `theta` is the architecture's own where none is given."""
    given = config.nested("rope_scaling")
    if not given.as_dict():
        given = config.nested("rope_parameters")
    if layer_type in given:
        given = given.nested(layer_type)
    kind = given.choice("rope_type" if "rope_type" in given else "type", ROPE_KINDS, "default")
    if "rope_theta" not in given:
        given = given.but(rope_theta=config.number("rope_theta", theta))
    if kind in ("llama3", "yarn", "longrope"):
        given = _with_trained_context(given, config)
    dim = _rotated(given, config)
    given = _checked_rope(given, kind, dim)
    return RopeSpec(
        theta=given.number("rope_theta"),
        dim=dim,
        kind=kind,
        parameters=given.as_dict(),
        max_position=config.integer("max_position_embeddings"),
    )


def _rotated(given: Config, config: Config) -> int:
    """Dimensions of a head that are rotated."""
    place = given if "partial_rotary_factor" in given else config
    share = place.positive("partial_rotary_factor", 1.0)
    if share > 1:
        raise place.wrong("partial_rotary_factor", "at most 1")
    dim = int(head_dim(config) * share)
    if dim < 2 or dim % 2:
        raise config.wrong("head_dim", f"of an even number of rotated dimensions ({dim})")
    return dim


def _with_trained_context(given: Config, config: Config) -> Config:
    key = "original_max_position_embeddings"
    trained = config.integer("max_position_embeddings")
    beside = config if key in config else given  # where it stands beside, it wins
    trained = beside.integer(key, trained)
    if trained < 2:
        raise beside.wrong(key, "at least 2")
    return given.but(**{key: trained})


def _checked_rope(given: Config, kind: str, dim: int) -> Config:
    if given.number("rope_theta") <= 1:
        raise given.wrong("rope_theta", "a number above 1")
    for key in ROPE_NEEDS.get(kind, ()):
        given.positive(key)
    given.flag("truncate")
    if kind == "llama3" and given.number("low_freq_factor") >= given.number("high_freq_factor"):
        raise given.wrong("low_freq_factor", "below high_freq_factor")
    if kind == "dynamic" and dim < 4:
        raise EngineError("unsupported", f"{given.name}: heads too narrow for a dynamic rope")
    if kind == "longrope":
        for key in ("short_factor", "long_factor"):
            _check_factors(given, key, dim // 2)
    return given.but(**{key: given.positive(key) for key in ROPE_NUMBERS if key in given})


def _check_factors(given: Config, key: str, count: int) -> None:
    factors = given.array(key)
    are_numbers = all(type(f) in (int, float) and 0 < f < MAX_INTEGER for f in factors)
    if len(factors) != count or not are_numbers:
        raise given.wrong(key, f"a list of {count} numbers above nought")


def _max_context(config: Config, ropes: Sequence[RopeSpec]) -> int:
    """Tokens a text may have. Yarn stretches what was trained, and who adds it to a published config.json
    need not raise `max_position_embeddings` with it."""
    longest = config.integer("max_position_embeddings")
    for rope in ropes:
        factor = rope.parameters.get("factor")
        if rope.kind == "yarn" and factor is not None:
            trained = rope.parameters["original_max_position_embeddings"]
            longest = max(longest, min(int(trained * factor), MAX_INTEGER))
    return longest


USUAL: Mapping[str, Callable[[Config], Any]] = {
    "layers": layers,
    "ropes": lambda config: (rope(config),),
    "norm": lambda config: NormSpec(eps=config.positive("rms_norm_eps")),
    "activation": lambda config: Activation(activation(config)),
    "is_tied": lambda config: config.flag("tie_word_embeddings"),
}
