"""Random tiny checkpoints by transformers, and what it computes from them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

TINY = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def save(folder: Path, model_type: str, **settings: Any) -> transformers.PreTrainedModel:
    """Write a random checkpoint; the model it was written from, in float32."""
    values = copy.deepcopy(TINY | settings)
    config = transformers.AutoConfig.for_model(model_type, **values)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.eval()
    randomize(model)
    model.save_pretrained(folder)
    return model


def randomize(model: transformers.PreTrainedModel, seed: int = 3) -> None:
    """Values that leave nothing out: norms off one, biases and sinks off nought."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_norm = "norm" in name and name.endswith("weight")
            spread = 0.3 if weight.dim() == 1 else 1.6 * weight.shape[-1] ** -0.5
            values = torch.randn(weight.shape, generator=generator) * spread
            weight.copy_(values + 1 if is_norm else values)


def logits(model: transformers.PreTrainedModel, tokens: list[int]) -> Tensor:
    """[T, vocab_size], with no cache."""
    with torch.no_grad():
        result: Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0]
    return result.float()


def greedy(model: transformers.PreTrainedModel, tokens: list[int], count: int) -> list[int]:
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(logits(model, tokens)[-1].argmax()))
    return tokens[-count:]
