"""Which build of torch the workers will import, found without importing it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def is_torch_for_gpus() -> bool:
    """Whether it brings libraries for GPUs (CUDA, ROCm): a process opens them wherever it computes."""
    spec = find_spec("torch")
    folders = spec.submodule_search_locations if spec else None
    return any(
        library.name.startswith(("libtorch_cuda.", "libtorch_hip."))
        for folder in folders or ()
        for library in Path(folder).glob("lib/libtorch_*")
    )
