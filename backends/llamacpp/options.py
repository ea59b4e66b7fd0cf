"""The worker's options file as a checked value. What it cannot mean is an error that names the key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.serving.option_values import OptionReader, cores, flag, names, number, one_of, whole

CACHE_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
POOLINGS = {"none": 0, "mean": 1, "cls": 2, "last": 3}
SWITCHES = {"auto": -1, "off": 0, "on": 1}
ROPE_SCALINGS = {"none": 0, "linear": 1, "yarn": 2}


@dataclass(frozen=True, slots=True)
class Options:
    """All that decides how a GGUF is loaded and run. None: as the model, or llama.cpp, has it."""

    path: str
    model: str = ""
    context: int | None = None
    parallel: int = 8
    kv_tokens: int | None = None
    threads: int = 1
    gpu_layers: int = -1
    devices: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    flash_attention: int = -1
    cache_type_k: int = 1
    cache_type_v: int = 1
    batch: int | None = None
    ubatch: int | None = None
    mmap: bool = True
    mlock: bool = False
    repack: int = -1
    pooling: int | None = None
    rope_scaling: int | None = None
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    lora: tuple[tuple[str, float], ...] = ()
    mmproj: str | None = None
    image_tokens: int | None = None


def parse(raw: Mapping[str, Any]) -> Options:
    """Options from the contract's JSON object; raises EngineError `bad_options`."""
    read = OptionReader(raw)
    path = read.path("the model's file")
    return Options(
        path=path,
        model=str(raw.get("model") or os.path.basename(path)),
        context=read("context", whole(1), None),
        parallel=read("parallel", whole(1, 256), 8),
        kv_tokens=read("kv_tokens", whole(1), None),
        threads=read("threads", whole(1, 512, auto=0), 0) or cores(),
        gpu_layers=read("gpu_layers", whole(-1, auto=-1), -1),
        devices=read("devices", names, ()),
        tensor_split=read("tensor_split", _numbers, ()),
        main_gpu=read("main_gpu", whole(0), 0),
        flash_attention=read("flash_attention", _switch, -1),
        cache_type_k=read("cache_type_k", one_of(CACHE_TYPES), 1),
        cache_type_v=read("cache_type_v", one_of(CACHE_TYPES), 1),
        batch=read("batch", whole(1), None),
        ubatch=read("ubatch", whole(1), None),
        mmap=read("mmap", flag, True),
        mlock=read("mlock", flag, False),
        repack=read("repack", _switch, -1),
        pooling=read("pooling", one_of(POOLINGS), None),
        rope_scaling=read("rope_scaling", one_of(ROPE_SCALINGS), None),
        rope_freq_base=read("rope_freq_base", number, 0.0),
        rope_freq_scale=read("rope_freq_scale", number, 0.0),
        lora=read("lora", _adapters, ()),
        mmproj=read("mmproj", _file, None),
        image_tokens=read("image_tokens", whole(1), None),
    )


def _switch(value: Any) -> int:
    return (
        SWITCHES["on" if value else "off"] if isinstance(value, bool) else one_of(SWITCHES)(value)
    )


def _file(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a path")
    return value


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of numbers")
    return tuple(number(item) for item in value)


def _adapters(value: Any) -> tuple[tuple[str, float], ...]:
    """`"a.gguf"`, or `["a.gguf", {"path": "b.gguf", "scale": 0.5}]`."""
    return tuple(_adapter(item) for item in (value if isinstance(value, list) else [value]))


def _adapter(value: Any) -> tuple[str, float]:
    if isinstance(value, str):
        return value, 1.0
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return value["path"], number(value.get("scale", 1.0))
    raise ValueError("a path, or {path, scale}, or a list of these")
