"""What can be said about a GGUF file without loading it: is it one, is it whole, are its parts there."""

from __future__ import annotations

import ctypes
import os
import re
from typing import Any

from backends.llamacpp.binding import L
from backends.serving.engine import EngineError

PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


def check(path: str) -> None:
    """Raise EngineError where `path`, or a part it belongs to, cannot be a GGUF file."""
    for part in parts(path):
        _check_one(part)


def parts(path: str) -> list[str]:
    """All files of a model of which `path` is the first, or the only one."""
    match = PART.match(path)
    if match is None:
        return [path]
    if int(match["number"]) != 1:
        first = f"{os.path.basename(match['stem'])}-00001-of-{match['count']}.gguf"
        raise EngineError("bad_options", f"path: name the first part of a split model, {first}")
    count = int(match["count"])
    return [f"{match['stem']}-{n:05d}-of-{match['count']}.gguf" for n in range(1, count + 1)]


def _check_one(path: str) -> None:
    name = os.path.basename(path)
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise EngineError("missing_file", f"{name} does not exist") from None
    except IsADirectoryError:
        raise EngineError("bad_file", f"{name} is a folder, not a GGUF file") from None
    except OSError as error:
        raise EngineError("missing_file", f"{name} cannot be read: {error.strerror}") from None
    if magic != b"GGUF":
        what = "is empty" if not magic else "is not a GGUF file"
        raise EngineError("bad_file", f"{name} {what}")


def truncation(path: str) -> str | None:
    """A sentence on what is missing at the end of the file, if its header says that something is."""
    for part in parts(path):
        present, expected = os.path.getsize(part), _expected_size(part)
        name = os.path.basename(part)
        if expected is None:
            return f"{name} has a broken or truncated header ({present} bytes)"
        if present < expected:
            return f"{name} is truncated: {present} of {expected} bytes"
    return None


class _InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def _expected_size(path: str) -> int | None:
    """Where the last tensor ends, after the header; None for a header that cannot be read."""
    library: Any = L._lib
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, _InitParams]
    library.gguf_init_from_file.restype = ctypes.c_void_p
    for name in ("gguf_get_n_tensors", "gguf_get_data_offset"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_int64
    for name in ("gguf_get_tensor_offset", "gguf_get_tensor_size"):
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_int64]
        getattr(library, name).restype = ctypes.c_size_t
    library.gguf_free.argtypes = [ctypes.c_void_p]
    header = library.gguf_init_from_file(os.fsencode(path), _InitParams(True, None))
    if not header:
        return None
    try:
        count = library.gguf_get_n_tensors(header)
        ends = (
            library.gguf_get_tensor_offset(header, i) + library.gguf_get_tensor_size(header, i)
            for i in range(count)
        )
        return int(library.gguf_get_data_offset(header) + max(ends, default=0))
    finally:
        library.gguf_free(header)
