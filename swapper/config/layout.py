"""The ways to lay a GGUF out over host and GPUs, best first, and the context there is room for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from swapper.core.footprint import LoadPlan, Shape, gpu_bytes, host_bytes
from swapper.core.registry import Bytes, Variant

HOST = "host"
LEAST_CONTEXT = 4096  # auto goes no lower; who wants less says so
ENOUGH_CONTEXT = 16384  # beyond this, a context must leave room to others:
COMFORT = 0.75  # so much of the memory there is may be filled


def layouts(
    shape: Shape, plan: LoadPlan, budgets: Bytes, gpu_layers: int | None, gpus: list[str]
) -> tuple[Variant, ...]:
    """Every sensible layout that fits the budgets, best first; if none does, the last resort.

    `gpu_layers` None: as many as there is room for. The output matrix counts as one layer more.
    """
    candidates = list(_candidates(shape, plan, budgets, gpu_layers, gpus))
    fitting = tuple(variant for variant in candidates if fits(variant.needs, budgets))
    return fitting or (candidates[-1],)


def fits(needs: Bytes, budgets: Bytes) -> bool:
    """Whether the devices, all to itself, have room for it."""
    return all(need <= budgets.get(device, 0) for device, need in needs.items())


def auto_context(
    shape: Shape, plan: LoadPlan, budgets: Bytes, gpu_layers: int | None, gpus: list[str]
) -> int:
    """The trained context, or the largest half, quarter, ... of it that leaves memory to others.

    Up to `ENOUGH_CONTEXT` it may take all there is. A model that can be wholly on GPUs stays there,
    with less context if need be.
    """

    def best(context: int, share: float) -> tuple[Variant, bool]:
        room = {device: int(size * share) for device, size in budgets.items()}
        variant = layouts(shape, replace(plan, context=context), room, gpu_layers, gpus)[0]
        return variant, fits(variant.needs, room)

    choices = list(_contexts(plan.context))
    least, _ = best(choices[-1], 1.0)
    for context in choices:
        variant, has_room = best(context, COMFORT if context > ENOUGH_CONTEXT else 1.0)
        stays = _layers(variant) > shape.num_layers or _layers(least) <= shape.num_layers
        if has_room and stays:
            return context
    return choices[-1]


def _contexts(trained: int) -> Iterator[int]:
    context = trained
    yield context
    while context // 2 >= LEAST_CONTEXT:
        context //= 2
        yield context


def _layers(variant: Variant) -> int:
    layers = variant.settings.get("gpu_layers", 0)
    return layers if isinstance(layers, int) else 0


def _candidates(
    shape: Shape, plan: LoadPlan, budgets: Bytes, gpu_layers: int | None, gpus: list[str]
) -> Iterator[Variant]:
    every = shape.num_layers + 1
    wanted = every if gpu_layers is None else min(gpu_layers, every)
    if gpus and wanted:
        by_room = sorted(gpus, key=lambda gpu: -budgets.get(gpu, 0))
        whole = [_on(shape, plan, wanted, gpu) for gpu in by_room]
        yield from whole
        if len(gpus) > 1 and not any(fits(variant.needs, budgets) for variant in whole):
            yield _split(shape, plan, wanted, {gpu: budgets.get(gpu, 0) for gpu in by_room})
        if gpu_layers is None:
            for layers in _fewer(shape, plan, budgets[by_room[0]]):
                yield from (_on(shape, plan, layers, gpu) for gpu in by_room)
    if gpu_layers is None or not gpus or not wanted:
        yield Variant({HOST: host_bytes(shape, plan)}, {"gpu_layers": 0})


def _fewer(shape: Shape, plan: LoadPlan, budget: int) -> list[int]:
    """Numbers of layers below all of them: the most that fits a GPU, then quarters.

    Left out where the process would take more of the host than without any GPU: tiny models.
    """
    every, alone = shape.num_layers + 1, host_bytes(shape, plan)
    most = next((n for n in range(every, 0, -1) if gpu_bytes(shape, plan, n) <= budget), 0)
    counts = {every * quarters // 4 for quarters in (3, 2, 1)} | {most}
    useful = (n for n in counts if 0 < n < every and host_bytes(shape, plan, n) < alone)
    return sorted(useful, reverse=True)


def _on(shape: Shape, plan: LoadPlan, layers: int, gpu: str) -> Variant:
    needs = {gpu: gpu_bytes(shape, plan, layers), HOST: host_bytes(shape, plan, layers)}
    return Variant(needs, {"gpu_layers": layers, "devices": [gpu]})


def _split(shape: Shape, plan: LoadPlan, layers: int, rooms: Mapping[str, int]) -> Variant:
    """Layers spread over GPUs by their room; each has its own scratch memory and context."""
    whole, fixed = gpu_bytes(shape, plan, layers), gpu_bytes(_empty(shape), plan, 1)
    total = sum(rooms.values()) or 1
    shares = {gpu: round(room / total, 3) for gpu, room in rooms.items()}
    needs = {gpu: fixed + round((whole - fixed) * share) for gpu, share in shares.items()}
    settings = {"gpu_layers": layers, "devices": [*rooms], "tensor_split": [*shares.values()]}
    return Variant({**needs, HOST: host_bytes(shape, plan, layers)}, settings)


def _empty(shape: Shape) -> Shape:
    """The model without weights and KV: what is left is the price of a GPU more."""
    return replace(
        shape, num_layers=0, layer_bytes=(), layer_repacked_bytes=(), output_bytes=0,
        kv_elements=(), windows=(), state_bytes=0,
    )  # fmt: skip
