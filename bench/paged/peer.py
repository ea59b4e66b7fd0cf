"""transformers' own continuous batching, on the same requests."""

from __future__ import annotations

import gc
import random
import time
from pathlib import Path

import torch


def continuous_batching(
    path: Path, device: torch.device, lengths: list[tuple[int, int]], vocab_size: int
) -> float:
    """Answer tokens a second, in and out as `lengths` say; 0 where it cannot run (it wants a GPU)."""
    if device.type != "cuda":
        return 0.0
    from transformers import AutoModelForCausalLM, GenerationConfig

    gc.collect()  # an engine that was closed is freed with its cycles
    torch.cuda.empty_cache()
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16, device_map=device, attn_implementation="paged|sdpa"
    )
    chance = random.Random(0)
    inputs = [[chance.randrange(8, vocab_size) for _ in range(length)] for length, _ in lengths]
    # One limit for all: requests of one call share their settings there, so the mean keeps the sum.
    answer = sum(wanted for _, wanted in lengths) // len(lengths)
    settings = GenerationConfig(
        max_new_tokens=answer, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    begun = time.perf_counter()
    model.generate_batch(inputs=inputs, generation_config=settings)
    return answer * len(lengths) / (time.perf_counter() - begun)
