"""x @ weight.T + bias, by whichever of torch's libraries is quickest at it.

A GPU has one. A CPU has two: for large float32 matrices oneDNN takes 0.3 to 0.7 of MKL's time with 3 to 500 rows (AMD,
AVX-512, torch 2.13); for small ones, and for 1 or 2 rows, MKL is quicker, which has less to prepare. oneDNN compiles a program for every number of
rows that it meets, in 1 to 3 ms, and keeps it, 0.7 MB each: it only meets some of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

HAS_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
LARGE = 1 << 18  # values of a matrix, from which on oneDNN is quicker with 3 rows and more
LARGE_FOR_FEW = 1 << 20  # and with 1 or 2


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [T, in], weight [out, in], bias [out] -> [T, out], in x's type."""
    if x.device.type != "cpu" or not HAS_ONEDNN:
        return F.linear(x, weight, bias)
    rows, is_full = len(x), x.dtype == torch.float32
    if is_full and weight.numel() < (LARGE if rows > 2 else LARGE_FOR_FEW):
        return F.linear(x, weight, bias)
    padding = padded(rows) - rows
    x = F.pad(x, (0, 0, 0, padding)) if padding else x
    out: Tensor
    if is_full:
        out = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    else:  # of 16 bits: goes to oneDNN by itself, where the processor can compute that
        out = F.linear(x, weight, bias)
    return out[:rows] if padding else out


def padded(rows: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: at most a third of the work is for nothing."""
    if rows < 4:
        return rows
    step = 1 << ((rows - 1).bit_length() - 2)
    return -(-rows // step) * step
