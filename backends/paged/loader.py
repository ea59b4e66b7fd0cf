"""From a checkpoint folder to a model that can compute."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from backends.paged import weights
from backends.paged.architectures import describe
from backends.paged.checkpoint import Checkpoint
from backends.paged.decoder import Decoder
from backends.paged.files import read_json
from backends.paged.spec import ModelSpec
from backends.serving.engine import EngineError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load(
    path: str,
    dtype: str | torch.dtype,
    device: torch.device | str,
    progress: Callable[[float], None] = lambda share: None,
    *,
    context: int | None = None,
    allocate: Callable[[int], Tensor] | None = None,
) -> tuple[ModelSpec, Decoder]:
    """The model in folder `path`, its weights in one buffer on `device`.

    `dtype` is `auto`, a name of DTYPES, or one of torch's. `context` is the longest request to be served,
    which some ropes depend on (default: as trained). `allocate` makes the buffer of so many bytes, uint8,
    where it is not to come from torch. Raises EngineError, before any memory is taken, with the kinds
    `missing_file`, `bad_file` and `unsupported`.
    """
    device = torch.device(device)
    if not os.path.isdir(path):
        kind, what = (
            ("bad_file", "is not a folder")
            if os.path.exists(path)
            else ("missing_file", "does not exist")
        )
        raise EngineError(kind, f"{os.path.basename(path)} {what}")
    config = read_json(path, "config.json")
    spec, names = describe(config)
    if not isinstance(dtype, torch.dtype):
        dtype = choose_dtype(dtype, config, device)
    with Checkpoint(path) as checkpoint:
        spec = weights.with_its_head(spec, checkpoint)
        decoder = Decoder(spec, dtype, "meta", context)
        jobs = weights.plan(decoder, checkpoint, names)
        size = decoder.num_bytes
        decoder.place(
            allocate(size) if allocate else torch.empty(size, dtype=torch.uint8, device=device)
        )
        weights.fill(decoder, checkpoint, jobs, progress)
    return spec, decoder


def choose_dtype(name: str, config: Mapping[str, Any], device: torch.device) -> torch.dtype:
    """What to compute in. `auto`: the checkpoint's own on a GPU, float32 on a CPU."""
    if name != "auto":
        if name not in DTYPES:
            raise EngineError("bad_options", f"dtype {name} is none of auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    inner = config.get("text_config") or {}
    own = next(
        (v for c in (config, inner) for k in ("dtype", "torch_dtype") if (v := c.get(k))),
        "bfloat16",
    )
    return DTYPES.get(str(own), torch.bfloat16)  # every GPU that is not refused has all of them
