"""MXFP4: 4-bit floats in groups of 32 that share a power of two, expanded when a checkpoint is read."""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 32
EXPONENT_BIAS = 127
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def expand(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Values [..., groups * 32] of blocks [..., groups, 16] uint8, each byte two values, the lower half
    first, and scales [..., groups] uint8, exponents of two (OCP Microscaling Formats 1.0).

    They are exact in bfloat16 and float32, and rounded once to any other `dtype`.
    """
    exact = torch.bfloat16 if dtype is torch.bfloat16 else torch.float32
    pairs = torch.index_select(_pairs(exact), 0, blocks.flatten().int())
    values = pairs.view(exact).view(*scales.shape, GROUP)
    ones = torch.ones(scales.shape)
    powers = torch.ldexp(ones, scales.int() - EXPONENT_BIAS).to(exact)
    return values.mul_(powers[..., None]).flatten(-2).to(dtype)


def _pairs(dtype: torch.dtype) -> Tensor:
    """Both values of every byte, as one element [256] of twice the width, to be looked up at once."""
    halves = torch.tensor([*VALUES, *(-value for value in VALUES)], dtype=dtype)
    both = torch.stack((halves.repeat(16), halves.repeat_interleave(16)), dim=-1)
    return both.view(torch.int32 if dtype.itemsize == 2 else torch.int64).flatten()
