"""The ways to serve a checkpoint, on one GPU or on the CPU, and the context there is room for. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from swapper.config.layout import COMFORT, ENOUGH_CONTEXT, fits, shorter_contexts
from swapper.core.checkpoint_footprint import (
    CheckpointPlan,
    CheckpointShape,
    gpu_bytes,
    host_bytes,
    host_bytes_beside_gpu,
    kv_bytes,
)
from swapper.core.registry import HOST, Bytes, Variant


def checkpoint_layouts(
    shape: CheckpointShape, plan: CheckpointPlan, budgets: Bytes, gpus: list[str], *, cpu: bool
) -> tuple[Variant, ...]:
    """Every layout that fits the budgets, best first; if none does, the last resort. `cpu`: whether it
    may go there."""
    candidates = list(_candidates(shape, plan, gpus, cpu=cpu or not gpus))
    fitting = tuple(variant for variant in candidates if fits(variant.needs, budgets))
    return fitting or (candidates[-1],)


def checkpoint_context(
    shape: CheckpointShape, plan: CheckpointPlan, budgets: Bytes, gpus: list[str], *, cpu: bool
) -> int:
    """The trained context, or the largest half, quarter, ... of it that leaves memory to others. A model
    that has room on a GPU stays there, with less context if need be."""
    choices = list(shorter_contexts(plan.context))

    def best(context: int, share: float) -> tuple[Variant, bool]:
        room = {device: int(size * share) for device, size in budgets.items()}
        variant = checkpoint_layouts(shape, replace(plan, context=context), room, gpus, cpu=cpu)[0]
        return variant, fits(variant.needs, room)

    least, _ = best(choices[-1], 1.0)
    for context in choices:
        variant, has_room = best(context, COMFORT if context > ENOUGH_CONTEXT else 1.0)
        if has_room and variant.quality >= least.quality:
            return context
    return choices[-1]


def _candidates(
    shape: CheckpointShape, plan: CheckpointPlan, gpus: list[str], *, cpu: bool
) -> Iterator[Variant]:
    for gpu in gpus:
        needs = {gpu: gpu_bytes(shape, plan), HOST: host_bytes_beside_gpu(shape, plan)}
        told = {"devices": [gpu], "kv_bytes": kv_bytes(shape, plan, on_gpu=True)}
        yield Variant(needs, told, (1, -1))
    if cpu:
        told = {"devices": [], "kv_bytes": kv_bytes(shape, plan, on_gpu=False)}
        yield Variant({HOST: host_bytes(shape, plan)}, told)
