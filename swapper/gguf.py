"""What a GGUF file says of itself, read from its header alone, without its weights.

The file is mapped and walked over once; long arrays (the vocabulary) are stepped over, not read. A
header with 150k tokens takes about 25 ms.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from swapper.core.footprint import Tensor
from swapper.errors import ConfigError

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_FORMATS = {kind: struct.Struct("<" + code) for kind, code in _SCALARS.items()}
_STRING, _ARRAY = 8, 9
_LONG = 1024  # arrays beyond this are vocabularies; nobody here asks for their values
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")

# ggml's tensor types: elements a block, bytes a block
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36),
    41: (128, 18),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A model's header; of a split file, all parts together. Of long arrays only `lengths` tells."""

    path: Path
    file_bytes: int
    metadata: Mapping[str, object]
    lengths: Mapping[str, int]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """`llama`, `qwen2`, `clip` (a vision projector), ..."""
        return str(self.metadata.get("general.architecture", ""))


def read_header(path: Path) -> GgufHeader:
    """The header of a model file; raises ConfigError for what is not whole, or no GGUF file."""
    first = _read_part(path)
    parts = [_read_part(part) for part in split_parts(path)[1:]]
    return replace(
        first,
        file_bytes=sum(part.file_bytes for part in [first, *parts]),
        tensors=sum((part.tensors for part in parts), first.tensors),
    )


def split_parts(path: Path) -> list[Path]:
    """All parts of a split file, the given first one in front; just the path if it is whole."""
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    if int(match[2]) != 1:
        raise ConfigError(f"{path.name} is a later part of a split file; name its first part")
    return [
        path.with_name(f"{match[1]}-{number:05d}-of-{match[3]}.gguf")
        for number in range(1, int(match[3]) + 1)
    ]


def _read_part(path: Path) -> GgufHeader:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except FileNotFoundError:
        raise ConfigError(f"{path.name}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}") from None
    except (struct.error, OverflowError, IndexError):
        raise ConfigError(f"{path.name} is cut off within its header") from None
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{path.name} is not a GGUF file that can be read: {error}") from None


def _parse(path: Path, data: mmap.mmap) -> GgufHeader:
    if data[:4] != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version, num_tensors, num_values = struct.unpack_from("<IQQ", data, 4)
    if version not in (2, 3):
        raise ValueError(_version(version))
    cursor = _Cursor(data, 24)
    metadata: dict[str, object] = {}
    lengths: dict[str, int] = {}
    for _ in range(num_values):
        key, value = cursor.string(), cursor.value(cursor.scalar(4))
        if isinstance(value, _Skipped):
            lengths[key] = value.length
        else:
            metadata[key] = value
    infos = [cursor.tensor() for _ in range(num_tensors)]
    start = _aligned(cursor.position, metadata.get("general.alignment", 32))
    tensors = tuple(_tensor(info, infos, len(data) - start) for info in infos)
    end = max(
        (start + info.offset + t.num_bytes for info, t in zip(infos, tensors, strict=True)),
        default=0,
    )
    if end > len(data):
        raise ConfigError(f"{path.name} is cut off: {len(data)} of {end} bytes are there")
    return GgufHeader(path, len(data), metadata, lengths, tensors)


def _version(version: int) -> str:
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if swapped in (2, 3):
        return "it is written in big-endian byte order"
    return f"version {version} of the format is not known"


def _aligned(position: int, alignment: object) -> int:
    step = alignment if isinstance(alignment, int) and alignment > 0 else 32
    return -(-position // step) * step


@dataclass(frozen=True, slots=True)
class _Skipped:
    length: int


@dataclass(frozen=True, slots=True)
class _Info:
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def _tensor(info: _Info, infos: list[_Info], data_bytes: int) -> Tensor:
    """The tensor with its size; of a type newer than this table, up to where the next one begins."""
    if info.kind in _BLOCKS:
        elements, num_bytes = _BLOCKS[info.kind]
        return Tensor(info.name, info.kind, info.shape, prod(info.shape) // elements * num_bytes)
    later = (other.offset for other in infos if other.offset > info.offset)
    return Tensor(info.name, info.kind, info.shape, min(later, default=data_bytes) - info.offset)


class _Cursor:
    """A place in the header that moves on with everything read."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self.data = data
        self.position = position

    def scalar(self, kind: int) -> int:
        (value,) = _FORMATS[kind].unpack_from(self.data, self.position)
        self.position += _FORMATS[kind].size
        return value  # type: ignore[no-any-return]

    def string(self) -> str:
        length = self.scalar(10)
        begin, self.position = self.position, self.position + length
        if self.position > len(self.data):
            raise IndexError(self.position)
        return self.data[begin : self.position].decode("utf-8", "replace")

    def value(self, kind: int) -> object:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.scalar(4), self.scalar(10))
        if kind not in _FORMATS:
            raise ValueError(f"value type {kind} is not known")
        return self.scalar(kind)

    def array(self, kind: int, length: int) -> object:
        if length <= _LONG:
            return tuple(self.value(kind) for _ in range(length))
        if kind == _STRING:
            self.skip_strings(length)
        elif kind in _FORMATS:
            self.position += _FORMATS[kind].size * length
        else:
            raise ValueError(f"a long array of type {kind} is not known")
        return _Skipped(length)

    def skip_strings(self, count: int) -> None:
        """Step over many strings; the one loop that takes time."""
        data, position, unpack = self.data, self.position, _FORMATS[10].unpack_from
        for _ in range(count):
            (length,) = unpack(data, position)
            position += 8 + length
        self.position = position

    def tensor(self) -> _Info:
        name = self.string()
        shape = tuple(self.scalar(10) for _ in range(self.scalar(4)))
        return _Info(name, shape, self.scalar(4), self.scalar(10))
