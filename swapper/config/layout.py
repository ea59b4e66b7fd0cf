"""The ways to lay a GGUF out over host and GPUs, best first, and the context there is room for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from swapper.core.footprint import LoadPlan, Shape, gpu_bytes, host_bytes
from swapper.core.registry import HOST, Bytes, Variant

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

    choices = list(shorter_contexts(plan.context))
    least, _ = best(choices[-1], 1.0)
    for context in choices:
        variant, has_room = best(context, COMFORT if context > ENOUGH_CONTEXT else 1.0)
        stays = _layers(variant) > shape.num_layers or _layers(least) <= shape.num_layers
        if has_room and stays:
            return context
    return choices[-1]


def shorter_contexts(trained: int) -> Iterator[int]:
    """What `auto` may choose from, longest first."""
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
        whole = list(_on_fewest(shape, plan, budgets, wanted, by_room))
        yield from whole
        if gpu_layers is None:
            fewer = _fewer(shape, plan, budgets[by_room[0]])
            if not any(fits(variant.needs, budgets) for variant in whole):
                yield from _partly_on_all(shape, plan, budgets, by_room)
            for layers in fewer:
                yield from (_on(shape, plan, layers, [gpu], budgets) for gpu in by_room)
    if gpu_layers is None or not gpus or not wanted:
        yield Variant({HOST: host_bytes(shape, plan)}, {"gpu_layers": 0})


def _on_fewest(
    shape: Shape, plan: LoadPlan, budgets: Bytes, layers: int, gpus: Sequence[str]
) -> Iterator[Variant]:
    """So many layers on each GPU; on each pair where no single one has room; and so on."""
    for number in range(1, len(gpus) + 1):
        variants = [_on(shape, plan, layers, some, budgets) for some in combinations(gpus, number)]
        yield from variants
        if any(fits(variant.needs, budgets) for variant in variants):
            return


def _partly_on_all(
    shape: Shape, plan: LoadPlan, budgets: Bytes, gpus: Sequence[str]
) -> Iterator[Variant]:
    """As many layers as all GPUs hold together, if that is more than one holds."""
    for layers in range(shape.num_layers, 0, -1):
        if len(gpus) < 2 or gpu_bytes(shape, plan, layers) <= budgets[gpus[0]]:
            return
        variant = _on(shape, plan, layers, gpus, budgets)
        if fits(variant.needs, budgets):
            yield variant
            return


def _fewer(shape: Shape, plan: LoadPlan, budget: int) -> list[int]:
    """Numbers of layers below all of them: the most that fits a GPU, then quarters.

    Left out where the process would take more of the host than without any GPU: tiny models.
    """
    every, alone = shape.num_layers + 1, host_bytes(shape, plan)
    most = next((n for n in range(every, 0, -1) if gpu_bytes(shape, plan, n) <= budget), 0)
    counts = {every * quarters // 4 for quarters in (3, 2, 1)} | {most}
    useful = (n for n in counts if 0 < n < every and host_bytes(shape, plan, n) < alone)
    return sorted(useful, reverse=True)


def _on(shape: Shape, plan: LoadPlan, layers: int, gpus: Sequence[str], budgets: Bytes) -> Variant:
    """Layers on a GPU, or spread over several by their room; each has its own scratch memory."""
    whole, host = gpu_bytes(shape, plan, layers), host_bytes(shape, plan, layers)
    settings: dict[str, object] = {"gpu_layers": layers, "devices": [*gpus]}
    quality = layers, -len(gpus)
    if len(gpus) == 1:
        return Variant({gpus[0]: whole, HOST: host}, settings, quality)
    total, fixed = sum(budgets[gpu] for gpu in gpus) or 1, gpu_bytes(_empty(shape), plan, 1)
    shares = {gpu: round(budgets[gpu] / total, 3) for gpu in gpus}
    needs = {gpu: fixed + round((whole - fixed) * share) for gpu, share in shares.items()}
    settings["tensor_split"] = [*shares.values()]
    return Variant({**needs, HOST: host}, settings, quality)


def _empty(shape: Shape) -> Shape:
    """The model without weights and KV: what is left is the price of a GPU more."""
    return replace(
        shape, num_layers=0, layer_bytes=(), layer_repacked_bytes=(), output_bytes=0,
        kv_elements=(), windows=(), state_bytes=0,
    )  # fmt: skip
