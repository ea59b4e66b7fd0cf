"""What a safetensors checkpoint says of itself: its config.json and the headers of its files.

A .safetensors file begins with the length of its header, 8 bytes, and the header, which is JSON: names,
types, shapes and places of all tensors. No weight is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from swapper.core.checkpoint_footprint import StoredTensor
from swapper.errors import ConfigError

INDEX = "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_LONGEST_HEADER = 100 << 20  # bytes; the format's own limit


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """A checkpoint's configuration and tensors, of all its files together."""

    folder: Path
    file_bytes: int
    config: Mapping[str, Any]
    tensors: tuple[StoredTensor, ...]


def is_checkpoint(folder: Path) -> bool:
    """Whether it looks like one: a configuration beside safetensors."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def read_checkpoint(folder: Path) -> CheckpointHeader:
    """The headers of a checkpoint; raises ConfigError for what is not whole, or no checkpoint."""
    if not folder.is_dir():
        raise ConfigError(f"{folder.name}: there is no such folder")
    config = _read_json(folder / "config.json")
    paths = _files(folder)
    return CheckpointHeader(
        folder,
        sum(path.stat().st_size for path in paths),
        config,
        tuple(tensor for path in paths for tensor in _read_header(path)),
    )


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        named = _read_json(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
    else:
        found = sorted(path.name for path in folder.glob("*.safetensors"))
        names = ["model.safetensors"] if "model.safetensors" in found else found[:1]
    if not names:
        pickled = any(path.suffix in _PICKLED for path in folder.iterdir())
        reason = "pickled weights only, which are never loaded" if pickled else "no safetensors"
        raise ConfigError(f"{folder.name} holds {reason}")
    paths = [folder / os.path.basename(name) for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ConfigError(f"{folder.name} lacks {len(missing)} of {len(paths)} files: {missing[0]}")
    return paths


def _read_header(path: Path) -> Iterator[StoredTensor]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _LONGEST_HEADER:
                raise ConfigError(f"{path.name} is not a safetensors file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = [_tensor(name, entry) for name, entry in header.items()]
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise ConfigError(f"{path.name} is cut off within its header, or no safetensors") from None
    if end > size:
        raise ConfigError(f"{path.name} is cut off: {size} of {end} bytes are there")
    yield from tensors


def _tensor(name: str, entry: Mapping[str, Any]) -> StoredTensor:
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(name)
    return StoredTensor(name, str(entry["dtype"]), prod(shape), end - begin)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path.parent.name} has no {path.name}") from None
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path.name} is not JSON") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name} holds no JSON object")
    return value
