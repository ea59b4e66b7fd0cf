"""The worker's options file as a checked value. What it cannot mean is an error that names the key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backends.serving.option_values import OptionReader, cores, names, one_of, whole

DType = Literal["auto", "float32", "bfloat16", "float16"]
Pooling = Literal["none", "mean", "cls", "last"]

DTYPES = {
    "auto": "auto",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "f32": "float32",
    "bf16": "bfloat16",
    "f16": "float16",
}


@dataclass(frozen=True, slots=True)
class Options:
    """All that decides how a checkpoint is loaded and run. None: as the model, or the device, has it."""

    path: str
    model: str = ""
    context: int | None = None
    parallel: int = 8
    kv_tokens: int | None = None
    kv_bytes: int | None = None  # goes before kv_tokens
    batch: int | None = None  # most tokens of one step
    threads: int = 1
    devices: tuple[str, ...] | None = None  # (): the CPU; None: a GPU if there is one
    dtype: DType = "auto"
    pooling: Pooling | None = None


def parse(raw: Mapping[str, Any]) -> Options:
    """Options from the contract's JSON object; raises EngineError `bad_options`."""
    read = OptionReader(raw)
    path = read.path("the model's folder")
    return Options(
        path=path,
        model=str(raw.get("model") or os.path.basename(os.path.normpath(path))),
        context=read("context", whole(1), None),
        parallel=read("parallel", whole(1, 1024), 8),
        kv_tokens=read("kv_tokens", whole(1), None),
        kv_bytes=read("kv_bytes", whole(1), None),
        batch=read("batch", whole(1), None),
        threads=read("threads", whole(1, 512, auto=0), 0) or cores(),
        devices=() if raw.get("gpu_layers") == 0 else read("devices", names, None),
        dtype=read("dtype", one_of(DTYPES), "auto"),
        pooling=read("pooling", one_of(("none", "mean", "cls", "last")), None),
    )
