"""A mixture of experts: each token goes through the few experts that a router picks for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends.paged import kernels
from backends.paged.kernels.routes import Routes
from backends.paged.layers import Linear, empty
from backends.paged.spec import Activation, ExpertsSpec


class Experts(nn.Module):
    """All experts of one layer; their weights are stacked, [count, out, in]."""

    def __init__(
        self,
        width: int,
        spec: ExpertsSpec,
        activation: Activation,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        count, inner = spec.count, spec.intermediate_size
        parts = (inner, inner) if activation.is_gated else (inner,)
        self.spec, self.activation = spec, activation
        self.router = Linear(width, (count,), spec.router_bias, dtype, device)
        self.expert_gate_up = Stacked(count, width, parts, spec.bias, dtype, device)
        self.expert_down = Stacked(count, inner, (width,), spec.bias, dtype, device)

    def forward(self, x: Tensor) -> Tensor:
        """x [T, width] -> [T, width]. On a GPU nothing here waits for it, whatever the router picks."""
        spec = self.spec
        routes = kernels.route(self.router(x), spec.per_token, normalized=spec.normalized)
        inner = self.expert_gate_up(x, routes, self.activation)
        return kernels.combine(self.expert_down(inner, routes), routes.shares)


class Stacked(nn.Module):
    """One product for each expert."""

    def __init__(
        self,
        count: int,
        width: int,
        parts: tuple[int, ...],
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.parts = parts
        self.weight = empty((count, sum(parts), width), dtype, device)
        self.bias = empty((count, sum(parts)), dtype, device) if bias else None

    def forward(self, x: Tensor, routes: Routes, activation: Activation | None = None) -> Tensor:
        return kernels.expert_products(x, self.weight, self.bias, routes, activation)
