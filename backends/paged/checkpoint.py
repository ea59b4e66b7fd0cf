"""The weights of a checkpoint folder as it is published: safetensors, one file or sharded with an index.

Nothing is ever unpickled and no code of the folder is run. What is wrong with a folder is said in one
sentence, before any weight is read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from backends.paged.files import check_regular, read_json, shown
from backends.serving.engine import EngineError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"[^/\\]+\.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


class Checkpoint:
    """The tensors of a folder, mapped into memory while it is open. Raises EngineError."""

    def __init__(self, folder: str) -> None:
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}  # tensor name -> the open file it is in
        try:
            for name, expected in _shards(folder).items():
                self._open(folder, name, expected)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.clear()
        self._stack.close()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._files)

    def layout(self, name: str) -> tuple[tuple[int, ...], str]:
        """Shape and type (`BF16`, `U8`, ...)."""
        view = self._files[name].get_slice(name)
        return tuple(view.get_shape()), view.get_dtype()

    def read(self, name: str) -> Tensor:
        """The tensor, as a view of its mapped file."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def _open(self, folder: str, name: str, expected: frozenset[str] | None) -> None:
        path = os.path.join(folder, name)
        try:
            check_regular(path, name)
            file = self._stack.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise EngineError("bad_file", _fault(path) or f"{name}: {error}") from None
        present = frozenset(file.keys())
        if expected is not None and (absent := expected - present):
            reason = f"{name} lacks {some(absent)}, which {INDEX} says it holds"
            raise EngineError("bad_file", reason)
        for tensor in present if expected is None else expected:
            self._files[tensor] = file


def _shards(folder: str) -> Mapping[str, frozenset[str] | None]:
    """File names, each with the tensors to take from it (None: all)."""
    if os.path.exists(os.path.join(folder, INDEX)):
        return _indexed(folder)
    names = _listed(folder)
    weights = [name for name in names if name.endswith(".safetensors")]
    if SINGLE in weights:
        return {SINGLE: None}
    if len(weights) == 1:
        return {weights[0]: None}
    if weights:
        reason = f"{shown(folder)} has {len(weights)} safetensors files and no {INDEX}"
        raise EngineError("missing_file", reason)
    if any(name.endswith(PICKLES) for name in names):
        reason = f"{shown(folder)} holds pickled weights only, which are never loaded; convert them to safetensors"
        raise EngineError("unsupported", reason)
    raise EngineError("missing_file", f"{shown(folder)} has no {SINGLE}")


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        reason = f"{shown(folder)} cannot be read: {error.strerror}"
        raise EngineError("bad_file", reason) from None


def _indexed(folder: str) -> Mapping[str, frozenset[str] | None]:
    weight_map = read_json(folder, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise EngineError("bad_file", f"{INDEX} has no weight_map")
    shards: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise EngineError(
                "bad_file", f"{INDEX}: {name!r} is not the name of a safetensors file"
            )
        shards.setdefault(name, set()).add(tensor)
    absent = {name for name in shards if not os.path.exists(os.path.join(folder, name))}
    if absent:
        of = f"{len(absent)} of {len(shards)} shards"
        raise EngineError("bad_file", f"{of} named by {INDEX} are missing: {some(absent)}")
    return {name: frozenset(tensors) for name, tensors in sorted(shards.items())}


def _fault(path: str) -> str | None:
    """What is wrong with a file that the library would not open, where its size tells."""
    name = os.path.basename(path)
    try:
        present = os.path.getsize(path)
        with open(path, "rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            if present < 8 + header_size and header_size < 1 << 30:
                return f"{name} is truncated: its header alone takes {8 + header_size} bytes, it has {present}"
            header = json.loads(file.read(header_size))
        ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
        expected = 8 + header_size + max(ends, default=0)
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError):
        return f"{name} is not a safetensors file"
    if present < expected:
        return f"{name} is truncated: {present} of {expected} bytes"
    return None


def some(names: frozenset[str] | set[str]) -> str:
    shown = sorted(names)[:3]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more
