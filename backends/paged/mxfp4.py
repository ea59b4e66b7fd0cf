"""MXFP4: 4-bit floats in groups of 32 that share a power of two, expanded when a checkpoint is read."""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 32
EXPONENT_BIAS = 127
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def expand(blocks: Tensor, scales: Tensor) -> Tensor:
    """Values [..., groups * 32] float32 of blocks [..., groups, 16] uint8, each byte two values, the lower
    half first, and scales [..., groups] uint8, exponents of two (OCP Microscaling Formats 1.0)."""
    table = torch.tensor([*VALUES, *(-value for value in VALUES)])
    both = torch.stack((table.repeat(16), table.repeat_interleave(16)), dim=-1)  # [byte, half]
    values = both[blocks.int()].flatten(-2)
    exponents = scales.int() - EXPONENT_BIAS
    return torch.ldexp(values, exponents[..., None]).flatten(-2)
