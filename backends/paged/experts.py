"""A mixture of experts: each token goes through the few experts that a router picks for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends.paged.layers import Linear, activate, empty
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
        """x [T, width] -> [T, width]."""
        shares, chosen = self._route(x)
        experts, order = chosen.flatten().sort(stable=True)
        counts = torch.zeros(self.spec.count, dtype=torch.int32, device=x.device)
        ends = counts.index_add_(0, experts, torch.ones_like(experts, dtype=torch.int32)).cumsum(
            0, dtype=torch.int32
        )
        rows = x[order // self.spec.per_token]
        inner = activate(self.expert_gate_up(rows, experts, ends), self.activation)
        outer = self.expert_down(inner, experts, ends)
        # Summed by token in a fixed order, so that a batch computed twice gives the same bits.
        by_token = torch.empty_like(outer).index_copy_(0, order, outer)
        by_token = by_token.view(*chosen.shape, -1)
        return (by_token * shares[..., None]).sum(1)

    def _route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen experts [T, per_token] and their shares."""
        scores = self.router(x).float()
        if (
            self.spec.normalized
        ):  # a softmax over the chosen ones is that over all, made to sum to 1
            best, chosen = scores.topk(self.spec.per_token, dim=-1)
            return best.softmax(-1).to(x.dtype), chosen
        shares, chosen = scores.softmax(-1).topk(self.spec.per_token, dim=-1)
        return shares.to(x.dtype), chosen


class Stacked(nn.Module):
    """One product for each expert, over rows that are sorted by expert."""

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

    def forward(self, rows: Tensor, experts: Tensor, ends: Tensor) -> Tensor:
        """rows [n, in] -> [n, out]; `experts` [n] is sorted, expert e's rows end at `ends[e]`."""
        if rows.is_cuda:  # counts stay on the device, so a graph can hold it
            out = F.grouped_mm(rows, self.weight.transpose(1, 2), offs=ends)
        else:
            out = self._one_by_one(rows, ends)
        return out if self.bias is None else out + self.bias[experts]

    def _one_by_one(self, rows: Tensor, ends: Tensor) -> Tensor:
        out = rows.new_empty(rows.shape[0], self.weight.shape[1])
        start = 0
        for expert, end in enumerate(ends.tolist()):
            if end > start:
                torch.mm(rows[start:end], self.weight[expert].t(), out=out[start:end])
            start = end
        return out
