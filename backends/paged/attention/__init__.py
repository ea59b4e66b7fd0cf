"""Attention over the block table: the Triton kernel on a GPU, torch everywhere else."""

from __future__ import annotations

from torch import Tensor

from backends.paged.attention import reference
from backends.paged.batch import Batch
from backends.paged.device import gpu_of, runs_triton


def store_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """Put this step's keys and values, [T, num_kv_heads, head_dim], where `slots` says."""
    if runs_triton(k):
        from backends.paged.attention import kernel

        return kernel.store_kv(k, v, k_cache, v_cache, slots)
    return reference.store_kv(k, v, k_cache, v_cache, slots)


def attend(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    batch: Batch,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
) -> Tensor:
    """Causal attention of q, [T, num_heads, head_dim], over what the cache holds of each sequence.

    A token sees itself and, where `window` is given, the window - 1 tokens before it. `sinks`,
    [num_heads], are scores that take their share and give no value.
    """
    if runs_triton(q):
        from backends.paged.attention import kernel

        return kernel.attend(
            q,
            k_cache,
            v_cache,
            batch,
            gpu_of(q.device),
            scale=scale,
            window=window,
            softcap=softcap,
            sinks=sinks,
        )
    return reference.attend(
        q, k_cache, v_cache, batch, scale=scale, window=window, softcap=softcap, sinks=sinks
    )
