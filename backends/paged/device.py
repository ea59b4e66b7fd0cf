"""Which family of kernels a tensor's device has. Decided here for all of them."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

HAS_TRITON = find_spec("triton") is not None


def runs_triton(tensor: Tensor) -> bool:
    """Whether Triton does what is done to `tensor`; else torch does."""
    return HAS_TRITON and tensor.is_cuda
