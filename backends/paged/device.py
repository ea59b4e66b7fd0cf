"""What depends on the device: which family of kernels there is, and how numbers get there."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

HAS_TRITON = find_spec("triton") is not None


def runs_triton(tensor: Tensor) -> bool:
    """Whether Triton does what is done to `tensor`; else torch does. Decided here for all kernels."""
    return HAS_TRITON and tensor.is_cuda


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, of the host, on `device`. A copy out of pinned memory waits for nothing launched before."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
