"""The worker's options file as a checked value. What it cannot mean is an error that names the key."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.serving.engine import EngineError

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


def parse(raw: Mapping[str, Any]) -> Options:
    """Options from the contract's JSON object; raises EngineError `bad_options`."""
    path = raw.get("path")
    if not isinstance(path, str) or not path:
        raise EngineError("bad_options", "path: the model's file is missing")
    read = _Reader(raw)
    return Options(
        path=path,
        model=str(raw.get("model") or os.path.basename(path)),
        context=read("context", _whole(1), None),
        parallel=read("parallel", _whole(1, 256), 8),
        kv_tokens=read("kv_tokens", _whole(1), None),
        threads=read("threads", _whole(1, 512, auto=0), 0) or _cores(),
        gpu_layers=read("gpu_layers", _whole(-1, auto=-1), -1),
        devices=read("devices", _names, ()),
        tensor_split=read("tensor_split", _numbers, ()),
        main_gpu=read("main_gpu", _whole(0), 0),
        flash_attention=read("flash_attention", _switch, -1),
        cache_type_k=read("cache_type_k", _one_of(CACHE_TYPES), 1),
        cache_type_v=read("cache_type_v", _one_of(CACHE_TYPES), 1),
        batch=read("batch", _whole(1), None),
        ubatch=read("ubatch", _whole(1), None),
        mmap=read("mmap", _flag, True),
        mlock=read("mlock", _flag, False),
        repack=read("repack", _switch, -1),
        pooling=read("pooling", _one_of(POOLINGS), None),
        rope_scaling=read("rope_scaling", _one_of(ROPE_SCALINGS), None),
        rope_freq_base=read("rope_freq_base", _number, 0.0),
        rope_freq_scale=read("rope_freq_scale", _number, 0.0),
        lora=read("lora", _adapters, ()),
    )


class _Reader:
    """Reads one key after another; a value's complaint becomes the option's."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def __call__(self, key: str, convert: Callable[[Any], Any], default: Any) -> Any:
        value = self._raw.get(key)
        if value is None:
            return default
        try:
            return convert(value)
        except ValueError as error:
            raise EngineError("bad_options", f"{key}: {value!r} is not {error}") from None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _whole(low: int, high: int | None = None, *, auto: int | None = None) -> Callable[[Any], int]:
    meaning = f"a whole number from {low}" + (f" to {high}" if high else "")

    def convert(value: Any) -> int:
        if value == "auto" and auto is not None:
            return auto
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(meaning)
        if value < low or (high is not None and value > high):
            raise ValueError(meaning)
        return value

    return convert


def _one_of(values: Mapping[str, int]) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        found = values.get(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"one of {', '.join(values)}")
        return found

    return convert


def _switch(value: Any) -> int:
    return (
        SWITCHES["on" if value else "off"] if isinstance(value, bool) else _one_of(SWITCHES)(value)
    )


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number")
    return float(value)


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ValueError("a list of numbers")
    return tuple(_number(item) for item in value)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of device names")
    return tuple(value)


def _adapters(value: Any) -> tuple[tuple[str, float], ...]:
    """`"a.gguf"`, or `["a.gguf", {"path": "b.gguf", "scale": 0.5}]`."""
    return tuple(_adapter(item) for item in (value if isinstance(value, list) else [value]))


def _adapter(value: Any) -> tuple[str, float]:
    if isinstance(value, str):
        return value, 1.0
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return value["path"], _number(value.get("scale", 1.0))
    raise ValueError("a path, or {path, scale}, or a list of these")
