"""llama-server's command line, as the keys of swapper's own GGUF engine."""

from __future__ import annotations

import shlex
from itertools import pairwise

from swapper.importing.draft import flow

_WITH_VALUE = {
    "-m": "path", "--model": "path", "-c": "context", "--ctx-size": "context",
    "-ngl": "gpu_layers", "--gpu-layers": "gpu_layers", "--n-gpu-layers": "gpu_layers",
    "-np": "parallel", "--parallel": "parallel", "-ctk": "cache_type_k",
    "--cache-type-k": "cache_type_k", "-ctv": "cache_type_v", "--cache-type-v": "cache_type_v",
    "-t": "threads", "--threads": "threads", "-mm": "mmproj", "--mmproj": "mmproj",
    "--image-max-tokens": "image_tokens",
}  # fmt: skip
_NUMBERS = ("context", "gpu_layers", "parallel", "threads", "image_tokens")
_ALL_LAYERS = 99  # how people say "all of them" there


def equivalent(cmd: str) -> str | None:
    """Keys that serve the same file in process; None if it is no llama-server, or not one file's."""
    try:
        words = shlex.split(cmd)
    except ValueError:
        return None
    if not words or words[0].rpartition("/")[2] != "llama-server":
        return None
    keys: dict[str, object] = {"engine": "llamacpp"}
    for flag, value in pairwise([*words, ""]):
        name, equals, joined = flag.partition("=")
        if (key := _WITH_VALUE.get(name)) is not None:
            found = joined if equals else value
            keys[key] = int(found) if key in _NUMBERS and found.isdecimal() else found
    if "path" not in keys or "${" in str(keys["path"]):
        return None
    return ", ".join(f"{key}: {flow(value)}" for key, value in keys.items() if _is_said(key, value))


def _is_said(key: str, value: object) -> bool:
    """Whether the key says more than swapper's default."""
    if key in _NUMBERS and not isinstance(value, int):
        return False
    if key == "gpu_layers":
        return int(str(value)) < _ALL_LAYERS
    return not (key == "context" and value == 0)
