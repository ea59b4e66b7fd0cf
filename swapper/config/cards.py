"""What is known of a model from its files, to be told to clients before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Final

from swapper.checkpoint import CheckpointHeader
from swapper.config.values import Config, ConfiguredModel
from swapper.gguf import GgufHeader

# GGUF's `general.file_type`
FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip
_TYPES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_GAPS: Final = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")


@dataclass(frozen=True, slots=True)
class Card:
    """One model. Zero, nothing and None: it is not known. `facts` are the file's own words for it."""

    format: str = ""  # gguf, safetensors
    architecture: str = ""
    num_parameters: int = 0
    quantization: str = ""
    context: int | None = None  # in tokens, as served
    embedding_length: int | None = None
    size_bytes: int = 0
    modified_at: float = 0.0  # seconds since 1970
    template: str = ""
    license: str = ""
    is_embedder: bool = False  # it answers nothing but embeddings
    fills_in: bool = False  # it was trained to write between two texts
    sees: bool = False  # it takes images
    facts: Mapping[str, object] = field(default_factory=dict)


def cards_of(config: Config) -> dict[str, Card]:
    """Of every configured model, by name."""
    return {name: card_of(model) for name, model in config.models.items()}


def card_of(model: ConfiguredModel) -> Card:
    """The card of a configured model; where it has no readable file, an almost empty one."""
    context = getattr(model.section, "context", None)
    context = context if isinstance(context, int) else None
    if model.header is not None:
        return replace(_of_gguf(model.header, context), sees=model.projector is not None)
    if model.checkpoint is not None:
        return _of_checkpoint(model.checkpoint, context)
    return Card(context=context)


def _of_gguf(header: GgufHeader, context: int | None) -> Card:
    metadata, name = header.metadata, header.architecture
    kind = metadata.get("general.file_type")
    return Card(
        format="gguf",
        architecture=name,
        num_parameters=sum(prod(tensor.shape) for tensor in header.tensors),
        quantization=FILE_TYPES.get(kind, "") if isinstance(kind, int) else "",
        context=context or _number(metadata.get(f"{name}.context_length")),
        embedding_length=_number(metadata.get(f"{name}.embedding_length")),
        size_bytes=header.file_bytes,
        modified_at=_modified_at(header.path),
        template=str(metadata.get("tokenizer.chat_template", "")),
        license=str(metadata.get("general.license", "")),
        is_embedder=bool(metadata.get(f"{name}.pooling_type"))
        or metadata.get(f"{name}.attention.causal") is False,
        fills_in=any(key in metadata for key in _GAPS),
        facts={k: v for k, v in metadata.items() if _is_fact(k, v)},
    )


def _is_fact(key: str, value: object) -> bool:
    return isinstance(value, str | int | float) and not key.startswith("tokenizer.")


def _of_checkpoint(checkpoint: CheckpointHeader, context: int | None) -> Card:
    config = {**checkpoint.config, **(checkpoint.config.get("text_config") or {})}
    name = str(checkpoint.config.get("model_type", ""))
    length = _number(config.get("max_position_embeddings"))
    width, layers = _number(config.get("hidden_size")), _number(config.get("num_hidden_layers"))
    facts = {"embedding_length": width, "block_count": layers}
    method = (config.get("quantization_config") or {}).get("quant_method")
    kind = str(config.get("dtype") or config.get("torch_dtype") or "")
    return Card(
        format="safetensors",
        architecture=name,
        num_parameters=sum(tensor.elements for tensor in checkpoint.tensors),
        quantization=str(method).upper() if method else _TYPES.get(kind, ""),
        context=context or length,
        embedding_length=width,
        size_bytes=checkpoint.file_bytes,
        modified_at=_modified_at(checkpoint.folder),
        facts={f"{name}.{key}": value for key, value in facts.items() if value is not None},
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _modified_at(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
