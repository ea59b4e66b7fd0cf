"""The architectures that are known, by the class names that config.json gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backends.paged.architectures import llama
from backends.paged.architectures.config import Config
from backends.paged.spec import ModelSpec
from backends.paged.weights import Names
from backends.serving.engine import EngineError

ARCHITECTURES: Mapping[str, Callable[[Config], tuple[ModelSpec, Names]]] = {
    "LlamaForCausalLM": llama.llama,
    "MistralForCausalLM": llama.mistral,
}


def describe(values: Mapping[str, Any]) -> tuple[ModelSpec, Names]:
    """What config.json says of a model, and how its weights are named.

    Raises EngineError: `unsupported` for an architecture, or a feature of one, that is not known.
    """
    config = Config(values)
    known = config.array("architectures", [])
    name = known[0] if known else "of no name"
    if name not in ARCHITECTURES:
        what = ", ".join(sorted(ARCHITECTURES))
        raise EngineError(
            "unsupported", f"architecture {name} is not supported; supported are {what}"
        )
    refuse_quantization(config)
    return ARCHITECTURES[name](config.over({"architecture": name}))


def refuse_quantization(config: Config) -> None:
    if "quantization_config" in config:
        method = config.nested("quantization_config").text("quant_method", "unknown")
        raise EngineError("unsupported", f"weights quantised by {method} are not supported")
