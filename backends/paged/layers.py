"""The parts a decoder layer is made of. Weights are empty until a checkpoint fills them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends.paged import kernels
from backends.paged.products import product
from backends.paged.spec import Activation, NormSpec


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=False)


class Linear(nn.Module):
    """x @ weight.T + bias. `parts` are the widths of the products that were fused into this one."""

    def __init__(
        self,
        width: int,
        parts: Sequence[int],
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.weight = empty((sum(parts), width), dtype, device)
        self.bias = empty((sum(parts),), dtype, device) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


class Norm(nn.Module):
    """RMS or layer norm over the last dimension, computed in float32."""

    def __init__(
        self, spec: NormSpec, width: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        self.spec = spec
        self.weight = empty((width,), dtype, device)
        self.bias = empty((width,), dtype, device) if spec.bias else None

    def forward(self, x: Tensor) -> Tensor:
        spec = self.spec
        if spec.kind == "rms":
            return kernels.rms_norm(x, self.weight, spec.eps, unit_offset=spec.unit_offset)
        if not spec.unit_offset:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, spec.eps)
        bias = None if self.bias is None else self.bias.float()
        normed = F.layer_norm(x.float(), self.weight.shape, self.weight.float() + 1, bias, spec.eps)
        return normed.to(x.dtype)

    def added(self, residual: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """residual + x, and its norm."""
        spec = self.spec
        if spec.kind == "rms":
            offset = spec.unit_offset
            return kernels.add_rms_norm(residual, x, self.weight, spec.eps, unit_offset=offset)
        total = residual + x
        return total, self(total)


class Mlp(nn.Module):
    def __init__(
        self,
        width: int,
        inner: int,
        activation: Activation,
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        parts = (inner, inner) if activation.is_gated else (inner,)
        self.gate_up = Linear(width, parts, bias, dtype, device)
        self.down = Linear(inner, (width,), bias, dtype, device)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.down(kernels.activate(self.gate_up(x), self.activation))  # type: ignore[no-any-return]


def softcapped(x: Tensor, cap: float) -> Tensor:
    return torch.tanh(x / cap) * cap if cap else x
