"""What depends on the device: which family of kernels there is, and how numbers get there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

HAS_TRITON = find_spec("triton") is not None
OLDEST = (8, 0)  # compute capability; for older ones Triton leaves the tensor cores unused
NO_MEMORY = r"out of memory|can't allocate memory|ALLOC_FAILED"  # a device's, the host's, cuBLAS's


def runs_triton(tensor: Tensor) -> bool:
    """Whether Triton does what is done to `tensor`; else torch does. Decided here for all kernels."""
    return HAS_TRITON and tensor.is_cuda


@dataclass(frozen=True, slots=True)
class Gpu:
    """What the shapes of kernels follow from."""

    generation: int  # major compute capability: 8 Ampere and Ada, 9 Hopper, 10 and 12 Blackwell
    shared_memory: int  # bytes that one program may have
    num_multiprocessors: int


@cache
def gpu_of(device: torch.device) -> Gpu:
    found = torch.cuda.get_device_properties(device)
    return Gpu(
        generation=found.major,
        shared_memory=found.shared_memory_per_block_optin,  # type: ignore[attr-defined]
        num_multiprocessors=found.multi_processor_count,
    )


def unsuited(found: torch.cuda._CudaDeviceProperties) -> str | None:
    """Why a device runs no kernel, to be read after "it is". None: it runs them."""
    if torch.version.hip is not None:
        return f"{found.name}, and this engine's kernels are laid out for NVIDIA GPUs"
    if (found.major, found.minor) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        return (
            f"{found.name} of compute capability {found.major}.{found.minor}, "
            f"and this engine's kernels need {needed} or more"
        )
    return None


class Arriving:
    """Tensors of one device on their way to the host. Whoever wants them waits for no later work."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        # A copy that does not block goes to pinned memory, and is whole only when the event has happened.
        self._tensors = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        self._event: torch.cuda.Event | None = None
        if any(tensor.is_cuda for tensor in tensors):
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def wait(self) -> list[Tensor]:
        """All of them, in the order given."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, of the host, on `device`. A copy out of pinned memory waits for nothing launched before."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def lacks_memory(error: Exception) -> bool:
    """Whether that is all that is wrong: a device can go on then."""
    return re.search(NO_MEMORY, str(error)) is not None


def in_short(error: Exception) -> str:
    """What is wrong, in words that a client may read."""
    if lacks_memory(error):
        return "there is not enough memory"
    if isinstance(error, torch.AcceleratorError):
        return str(error).partition("\n")[0]
    return "its log says why"
