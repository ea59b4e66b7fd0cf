"""The GPUs that llama.cpp sees, and how much of their memory a load took."""

from __future__ import annotations

import ctypes
import re
from typing import Any

from backends.llamacpp.binding import L
from backends.serving.engine import EngineError

GPU_KINDS = (1, 2)  # ggml_backend_dev_type: discrete, integrated


def gpu_devices() -> dict[str, Any]:
    """ggml's GPU devices by the contract's names: `CUDA0` is `cuda:0`."""
    devices: dict[str, Any] = {}
    library = L._lib
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    library.ggml_backend_dev_name.argtypes = [ctypes.c_void_p]
    library.ggml_backend_dev_name.restype = ctypes.c_char_p
    for index in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(index)
        if library.ggml_backend_dev_type(device) in GPU_KINDS:
            name = library.ggml_backend_dev_name(device).decode().lower()
            devices[re.sub(r"(\D)(\d+)$", r"\1:\2", name)] = device
    return devices


def free_bytes(device: Any) -> int:
    """Memory that `device` says is free."""
    library = L._lib
    size_p = ctypes.POINTER(ctypes.c_size_t)
    library.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size_p, size_p]
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return free.value


def pointers_to(names: tuple[str, ...]) -> Any:
    """A null-terminated C array of the named devices; raises EngineError for one that is not there."""
    known = gpu_devices()
    wanted = [name for name in names if name != "cpu"]
    for name in wanted:
        if name not in known:
            have = ", ".join(known) or "no GPU"
            raise EngineError(
                "bad_options", f"devices: {name!r} is not there; llama.cpp sees {have}"
            )
    return (ctypes.c_void_p * (len(wanted) + 1))(*(known[name] for name in wanted), None)


class DeviceMeter:
    """Free memory of every GPU before a load, to compare with later."""

    def __init__(self) -> None:
        self._devices = gpu_devices()
        self._before = {name: free_bytes(device) for name, device in self._devices.items()}

    def used(self) -> dict[str, int]:
        """Bytes less free than before, by device; other programs' doings included."""
        now = {name: free_bytes(device) for name, device in self._devices.items()}
        taken = {name: self._before[name] - free for name, free in now.items()}
        return {name: count for name, count in taken.items() if count > 0}
