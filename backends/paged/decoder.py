"""One decoder-only transformer over a paged KV cache, for every architecture that a `ModelSpec` can tell.

All weights stand in one buffer, fused and in the order in which a step reads them, so that the whole
model is moved by one copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backends.paged.attention import attend, store_kv
from backends.paged.batch import Batch, KvCache
from backends.paged.experts import Experts
from backends.paged.kernels import rotate_and_store
from backends.paged.layers import Linear, Mlp, Norm, empty, softcapped
from backends.paged.products import product
from backends.paged.rope import Angles, Rope
from backends.paged.spec import ModelSpec

ALIGNMENT = 256  # bytes; what every tensor of the buffer starts at a multiple of


class Decoder(nn.Module):
    """The model. `context` is the longest request that will be served (default: as trained)."""

    def __init__(
        self,
        spec: ModelSpec,
        dtype: torch.dtype,
        device: torch.device | str,
        context: int | None = None,
    ) -> None:
        super().__init__()
        device = torch.device(device)
        self.spec = spec
        self.dtype = dtype
        self.embedding = Embedding(spec, dtype, device)
        self.layers = nn.ModuleList(Layer(spec, i, dtype, device) for i in range(spec.num_layers))
        self.norm = Norm(spec.norm, spec.hidden_size, dtype, device)
        self.head = None
        if not spec.is_tied:
            self.head = Linear(spec.hidden_size, (spec.vocab_size,), False, dtype, device)
        ropes = (Rope(rope, context or spec.max_context, device) for rope in spec.ropes)
        self.ropes = nn.ModuleList(ropes)

    def forward(self, tokens: Tensor, batch: Batch, cache: KvCache) -> Tensor:
        """Hidden states [T, hidden_size] of `tokens` [T], final norm applied; their K/V are stored."""
        angles = [rope(batch.positions, self.dtype) for rope in self.ropes]
        residual, update = self.embedding(tokens), None
        for layer, kv in zip(self.layers, cache.layers, strict=True):
            residual, update = layer(residual, update, angles, batch, kv)
        return _joined(self.norm, residual, update)[1]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [n, vocab_size] float32 of hidden states [n, hidden_size]."""
        head = self.embedding if self.head is None else self.head
        logits = product(hidden, head.weight).float()
        if self.spec.logits_scale != 1.0:
            logits = logits * self.spec.logits_scale
        return softcapped(logits, self.spec.logits_softcap)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that the model is made of, in the order in which a step reads it."""
        yield from self.named_buffers()
        yield from self.named_parameters()

    def fill_constants(self) -> None:
        """Write what follows from the spec alone."""
        for rope in self.ropes:
            rope.fill_constants()  # type: ignore[operator]

    @property
    def num_bytes(self) -> int:
        """What `place` needs."""
        return sum(_aligned(tensor.nbytes) for _, tensor in self.tensors())

    def place(self, buffer: Tensor) -> None:
        """Make every tensor a view of `buffer` ([num_bytes] uint8, aligned), whatever that holds.

        The first buffer is filled by `weights.fill`; any other by copying all of that one.
        """
        offset = 0
        for name, tensor in list(self.tensors()):
            view = buffer[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            offset += _aligned(tensor.nbytes)
            module, _, leaf = name.rpartition(".")
            is_weight = isinstance(tensor, nn.Parameter)
            value = nn.Parameter(view, requires_grad=False) if is_weight else view
            setattr(self.get_submodule(module), leaf, value)


class Embedding(nn.Module):
    def __init__(self, spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.weight = empty((spec.vocab_size, spec.hidden_size), dtype, device)
        # Models were trained with the scale in their own precision.
        self.scale = float(torch.tensor(spec.embedding_scale, dtype=dtype))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = F.embedding(tokens, self.weight)
        return hidden if self.scale == 1.0 else hidden * self.scale


class Layer(nn.Module):
    """Attention and MLP, each added to what it was given; norms before, after, or both."""

    def __init__(self, spec: ModelSpec, index: int, dtype: torch.dtype, device: torch.device):
        super().__init__()
        placement = spec.norm_placement

        def norm(present: bool) -> Norm | None:
            return Norm(spec.norm, spec.hidden_size, dtype, device) if present else None

        self.is_parallel = placement == "parallel"
        self.residual_scale = spec.residual_scale
        self.attention_norm = norm(placement != "post")
        self.attention = Attention(spec, index, dtype, device)
        self.attention_post_norm = norm(placement in ("post", "sandwich"))
        self.mlp_norm = norm(placement in ("pre", "sandwich"))
        self.mlp = _mlp(spec, index, dtype, device)
        self.mlp_post_norm = norm(placement in ("post", "sandwich"))

    def forward(
        self,
        residual: Tensor,
        update: Tensor | None,
        angles: Sequence[Angles],
        batch: Batch,
        kv: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The residual stream, and what is still to be added to it (fused with the norm that follows)."""
        residual, x = _joined(self.attention_norm, residual, update)
        attended = _normed(self.attention_post_norm, self.attention(x, angles, batch, kv))
        if self.is_parallel:
            return residual, self._scaled(attended + self.mlp(x))
        residual, x = _joined(self.mlp_norm, residual, self._scaled(attended))
        return residual, self._scaled(_normed(self.mlp_post_norm, self.mlp(x)))

    def _scaled(self, update: Tensor) -> Tensor:
        return update if self.residual_scale == 1.0 else update * self.residual_scale


class Attention(nn.Module):
    def __init__(self, spec: ModelSpec, index: int, dtype: torch.dtype, device: torch.device):
        super().__init__()
        layer, dim = spec.layers[index], spec.head_dim
        heads, kv_heads = spec.num_heads, spec.num_kv_heads
        self.num_heads, self.num_kv_heads, self.head_dim = heads, kv_heads, dim
        self.window, self.rope = layer.window, layer.rope
        self.scale = spec.attention_scale or dim**-0.5
        self.softcap = spec.attention_softcap
        self.norms_heads = spec.qk_norm == "head"
        self.qkv = Linear(
            spec.hidden_size,
            (heads * dim, kv_heads * dim, kv_heads * dim),
            spec.qkv_bias,
            dtype,
            device,
        )
        self.q_norm = self.k_norm = None
        if spec.qk_norm:
            widths = (dim, dim) if self.norms_heads else (heads * dim, kv_heads * dim)
            self.q_norm, self.k_norm = (Norm(spec.norm, w, dtype, device) for w in widths)
        self.sinks = empty((heads,), dtype, device) if spec.sinks else None
        self.out = Linear(heads * dim, (spec.hidden_size,), spec.out_bias, dtype, device)

    def forward(
        self, x: Tensor, angles: Sequence[Angles], batch: Batch, kv: tuple[Tensor, Tensor]
    ) -> Tensor:
        q, k, v = self.qkv(x).split(self.qkv.parts, dim=-1)
        if not self.norms_heads:
            q, k = _normed(self.q_norm, q), _normed(self.k_norm, k)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)) for part in (q, k, v))
        if self.norms_heads:
            q, k = _normed(self.q_norm, q), _normed(self.k_norm, k)
        if self.rope is None:
            store_kv(k, v, *kv, batch.slots)
        else:
            q = rotate_and_store(q, k, v, *angles[self.rope], *kv, batch.slots)
        attended = attend(
            q,
            *kv,
            batch,
            scale=self.scale,
            window=self.window,
            softcap=self.softcap,
            sinks=self.sinks,
        )
        return self.out(attended.flatten(1))  # type: ignore[no-any-return]


def _mlp(spec: ModelSpec, index: int, dtype: torch.dtype, device: torch.device) -> nn.Module:
    if spec.experts and spec.layers[index].has_experts:
        return Experts(spec.hidden_size, spec.experts, spec.activation, dtype, device)
    width, inner = spec.hidden_size, spec.intermediate_size
    return Mlp(width, inner, spec.activation, spec.mlp_bias, dtype, device)


def _joined(norm: Norm | None, residual: Tensor, update: Tensor | None) -> tuple[Tensor, Tensor]:
    """residual + update, and its norm where there is one."""
    if update is None:
        return residual, _normed(norm, residual)
    if norm is None:
        total = residual + update
        return total, total
    return norm.added(residual, update)


def _normed(norm: Norm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
