"""The architectures that are known, by the class names that config.json gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backends.paged.architectures import (
    gemma,
    gpt_oss,
    interleaved,
    llama,
    mixtral,
    olmo,
    phi3,
    qwen,
    starcoder2,
)
from backends.paged.architectures.config import Config
from backends.paged.spec import ModelSpec
from backends.paged.weights import Names
from backends.serving.engine import EngineError

ARCHITECTURES: Mapping[str, Callable[[Config], tuple[ModelSpec, Names]]] = {
    "Cohere2ForCausalLM": interleaved.cohere2,
    "CohereForCausalLM": interleaved.cohere,
    "Ernie4_5ForCausalLM": interleaved.ernie4_5,
    "Gemma2ForCausalLM": gemma.gemma2,
    "Gemma3ForCausalLM": gemma.gemma3,
    "Gemma3ForConditionalGeneration": gemma.gemma3_beside_images,
    "GemmaForCausalLM": gemma.gemma,
    "Glm4ForCausalLM": interleaved.glm4,
    "GlmForCausalLM": interleaved.glm,
    "GptOssForCausalLM": gpt_oss.gpt_oss,
    "GraniteForCausalLM": llama.granite,
    "LlamaForCausalLM": llama.llama,
    "Mistral3ForConditionalGeneration": llama.mistral_beside_images,
    "MistralForCausalLM": llama.mistral,
    "MixtralForCausalLM": mixtral.mixtral,
    "Olmo2ForCausalLM": olmo.olmo2,
    "Olmo3ForCausalLM": olmo.olmo3,
    "Phi3ForCausalLM": phi3.phi3,
    "Qwen2ForCausalLM": qwen.qwen2,
    "Qwen3ForCausalLM": qwen.qwen3,
    "Qwen3MoeForCausalLM": qwen.qwen3_moe,
    "SeedOssForCausalLM": llama.seed_oss,
    "SmolLM3ForCausalLM": llama.smollm3,
    "Starcoder2ForCausalLM": starcoder2.starcoder2,
}

QUANTISATION = ("quantization_config", "compression_config", "quantization")  # old names, and MLX's
UNSUPPORTED = ("use_bidirectional_attention", "is_encoder_decoder", "add_cross_attention")


def describe(values: Mapping[str, Any]) -> tuple[ModelSpec, Names]:
    """What config.json says of a model, and how its weights are named.

    Raises EngineError: `unsupported` for an architecture, or a feature of one, that is not known.
    """
    config = Config(values)
    named = config.array("architectures", [])
    if not named:
        raise EngineError("unsupported", "config.json names no architecture")
    name = str(named[0])
    if name not in ARCHITECTURES:
        what = ", ".join(sorted(ARCHITECTURES))
        raise EngineError(
            "unsupported", f"architecture {name} is not supported; supported are {what}"
        )
    for inner in (config, config.nested("text_config")):
        _refuse_features(inner, name)
    return ARCHITECTURES[name](config.over({"architecture": name}))


def _refuse_features(config: Config, name: str) -> None:
    """Settings that would change what a model computes, whatever its architecture."""
    for key in UNSUPPORTED:
        if config.flag(key):
            raise EngineError("unsupported", f"{config.name}: {key} is not supported")
    if not config.flag("is_causal", True):
        raise EngineError("unsupported", f"{config.name}: attention both ways is not supported")
    for key in QUANTISATION:
        if key in config:
            method = config.nested(key).text("quant_method", "a method without a name")
            if (name, method) != ("GptOssForCausalLM", "mxfp4"):
                reason = f"{name} quantised by {method} is not supported; in 16 or 32 bits it is"
                raise EngineError("unsupported", reason)
