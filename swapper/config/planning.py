"""From a configuration and a machine to a registry: budgets, and every model's variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from swapper.checkpoint import CheckpointHeader
from swapper.config.checkpoint_layout import checkpoint_context, checkpoint_layouts
from swapper.config.fields import ANY_GPU
from swapper.config.layout import auto_context, fits, layouts
from swapper.config.problems import Problem
from swapper.config.schema import LlamaCppModel, ModelSection, PagedModel
from swapper.config.units import format_size
from swapper.config.values import Config, ConfiguredModel
from swapper.core.checkpoint_footprint import CheckpointPlan, read_checkpoint_shape
from swapper.core.events import DeviceReading
from swapper.core.footprint import LoadPlan, Shape, projector_bytes, read_shape
from swapper.core.registry import HOST, Bytes, ModelSpec, Registry, Settings, Variant, is_gpu
from swapper.gguf import GgufHeader
from swapper.torch_build import is_torch_for_gpus

GIB = 1 << 30
LOAD_BYTES_S = 1.0e9  # a disk's speed, as a first guess of load times


@dataclass(frozen=True, slots=True)
class Planned:
    """A registry, and what was decided on the way that people should know."""

    registry: Registry
    notes: tuple[Problem, ...]


def build_registry(config: Config, devices: Mapping[str, DeviceReading]) -> Registry:
    """The registry for this machine."""
    return plan_registry(config, devices).registry


def plan_registry(config: Config, devices: Mapping[str, DeviceReading], cores: int = 0) -> Planned:
    """The same, with notes. `cores` are shared by those who compute on them; 0: nobody is told."""
    planner = _Planner(config, devices)
    models = {name: planner.spec(model) for name, model in config.models.items()}
    registry = Registry(models, planner.budgets, config.limits, cores)
    return Planned(registry, tuple(planner.notes))


def budgets_of(config: Config, devices: Mapping[str, DeviceReading]) -> dict[str, int]:
    """What all models together may take of every device."""
    gpu = config.memory.gpu
    wanted = {
        device: gpu.get(device, "auto") if isinstance(gpu, dict) else gpu for device in devices
    }
    wanted[HOST] = config.memory.host
    return {name: _budget(wanted[name], reading.total) for name, reading in devices.items()}


def _budget(wanted: int | float | Literal["auto"], total: int) -> int:
    if wanted == "auto":
        return max(0, total - max(GIB, total // 10))
    return min(total, round(wanted * total) if isinstance(wanted, float) else wanted)


class _Planner:
    """Plans one model after another; `notes` tell what is not as somebody might expect."""

    def __init__(self, config: Config, devices: Mapping[str, DeviceReading]) -> None:
        self.config = config
        self.budgets = budgets_of(config, devices)
        self.notes: list[Problem] = []

    def spec(self, model: ConfiguredModel) -> ModelSpec:
        variants = self._variants(model)
        self._check_room(model, variants)
        return replace(
            model.spec,
            variants=variants,
            load_s=_load_guess(model),
            shares_cores=_shares_cores(model, variants),
        )

    def _variants(self, model: ConfiguredModel) -> tuple[Variant, ...]:
        section = model.section
        if memory := getattr(section, "memory", None):
            places = _places(memory, self._gpus(model, section))
            return tuple(Variant(needs, _told(section, needs)) for needs in places)
        if isinstance(section, PagedModel):
            if model.checkpoint is None:
                return (Variant(settings={"devices": []}),)
            return self._checkpoint_laid_out(model, section, model.checkpoint)
        if not isinstance(section, LlamaCppModel):
            return model.spec.variants
        if model.header is None:
            return (Variant(settings={"gpu_layers": 0}),)
        header = model.header
        return self._laid_out(
            model, section, read_shape(header.metadata, header.lengths, header.tensors)
        )

    def _laid_out(
        self, model: ConfiguredModel, section: LlamaCppModel, shape: Shape
    ) -> tuple[Variant, ...]:
        gpus = self._gpus(model, section)
        layers = None if section.gpu_layers == "auto" else section.gpu_layers
        plan = _load_plan(model, section, shape)
        context = plan.context
        if section.context == "auto" and section.kv_tokens is None:
            context = auto_context(shape, plan, self.budgets, layers, gpus)
        variants = layouts(shape, replace(plan, context=context), self.budgets, layers, gpus)
        if section.context != "auto" or context == shape.trained_context:
            return variants
        if context < plan.context:
            self._note(model, f"context: {context} of {plan.context} tokens, as memory is short")
        told = {"context": context}
        return tuple(replace(v, settings={**v.settings, **told}) for v in variants)

    def _checkpoint_laid_out(
        self, model: ConfiguredModel, section: PagedModel, checkpoint: CheckpointHeader
    ) -> tuple[Variant, ...]:
        shape = read_checkpoint_shape(checkpoint.config, checkpoint.tensors)
        gpus, cpu = self._gpus(model, section), section.devices in (None, [])
        trained = min(shape.trained_context or 4096, section.kv_tokens or shape.trained_context)
        wanted = trained if section.context == "auto" else section.context
        plan = CheckpointPlan(
            wanted,
            section.kv_tokens,
            section.parallel,
            section.batch,
            section.dtype,
            gpu_build=is_torch_for_gpus(),
        )
        if section.context == "auto" and section.kv_tokens is None:
            context = checkpoint_context(shape, plan, self.budgets, gpus, cpu=cpu)
            if context < wanted:
                self._note(model, f"context: {context} of {wanted} tokens, as memory is short")
            plan = replace(plan, context=context)
        variants = checkpoint_layouts(shape, plan, self.budgets, gpus, cpu=cpu)
        told = {"context": plan.context}
        return tuple(replace(v, settings={**v.settings, **told}) for v in variants)

    def _gpus(self, model: ConfiguredModel, section: ModelSection) -> list[str]:
        present = [device for device, size in self.budgets.items() if is_gpu(device) and size]
        if not isinstance(section, LlamaCppModel | PagedModel):
            return present
        missing = set(section.devices or ()) - set(present)
        if missing:
            self._note(
                model, f"devices: {', '.join(sorted(missing))} is not there or has no budget"
            )
        wants_gpu = isinstance(section, LlamaCppModel) and section.gpu_layers not in ("auto", 0)
        if wants_gpu and not present:
            self._note(model, "gpu_layers: there is no GPU; all layers run on the CPU")
        return [gpu for gpu in present if section.devices is None or gpu in section.devices]

    def _check_room(self, model: ConfiguredModel, variants: tuple[Variant, ...]) -> None:
        if any(fits(variant.needs, self.budgets) for variant in variants):
            return
        lacks = ", ".join(
            f"{format_size(need)} of {device}, where {format_size(self.budgets.get(device, 0))} may be used"
            for device, need in variants[-1].needs.items()
            if need > self.budgets.get(device, 0)
        )
        self._note(model, f"needs {lacks}: it cannot be loaded")

    def _note(self, model: ConfiguredModel, text: str) -> None:
        key, name = f"models.{model.spec.name}", model.spec.name
        self.notes.append(Problem(self.config.file, model.line, key, text, name))


def _places(memory: Bytes, gpus: list[str]) -> list[dict[str, int]]:
    """Memory as set by hand; what is for any GPU, on each of them."""
    if ANY_GPU not in memory:
        return [dict(memory)]
    fixed = {device: size for device, size in memory.items() if device != ANY_GPU}
    return [{gpu: memory[ANY_GPU], **fixed} for gpu in gpus if gpu not in fixed] or [dict(memory)]


def _told(section: ModelSection, memory: Bytes) -> Settings:
    """Settings where memory was set by hand: the GPUs named there are the model's, all layers on
    them."""
    gpus = {"devices": devices} if (devices := [name for name in memory if is_gpu(name)]) else {}
    if isinstance(section, PagedModel):
        return gpus or {"devices": []}
    if not isinstance(section, LlamaCppModel):
        return gpus
    layers = -1 if section.gpu_layers == "auto" else section.gpu_layers
    return {"gpu_layers": layers if gpus else 0, **gpus}


def _is_embedder(header: GgufHeader | None) -> bool:
    """Whether a whole text has to be computed at once: pooled, and not just by its last token."""
    if header is None:
        return False
    pooling = header.metadata.get(f"{header.architecture}.pooling_type", 0)
    return (
        pooling not in (0, 3)
        or header.metadata.get(f"{header.architecture}.attention.causal") is False
    )


def _load_plan(model: ConfiguredModel, section: LlamaCppModel, shape: Shape) -> LoadPlan:
    seen, is_whole = model.projector, _is_embedder(model.header)
    trained = shape.trained_context or 4096
    context = (
        min(trained, section.kv_tokens or trained) if section.context == "auto" else section.context
    )
    return LoadPlan(
        context=context,
        kv_tokens=section.kv_tokens,
        parallel=section.parallel,
        cache_type_k=section.cache_type_k,
        cache_type_v=section.cache_type_v,
        ubatch=context if is_whole else section.ubatch or 512,
        mmap=section.mmap,
        projector_bytes=(
            0
            if seen is None
            else projector_bytes(seen.metadata, seen.tensors, section.image_tokens)
        ),
    )


def _shares_cores(model: ConfiguredModel, variants: tuple[Variant, ...]) -> bool:
    """Whether it computes on the CPU, with as many threads as it is told."""
    section = model.section
    if not isinstance(section, LlamaCppModel | PagedModel) or section.threads != "auto":
        return False
    return all(device == HOST for device in variants[0].needs)


def _load_guess(model: ConfiguredModel) -> float | None:
    """Seconds to load, before any load was seen."""
    if model.header is not None:
        return 0.5 + model.header.file_bytes / LOAD_BYTES_S
    if model.checkpoint is not None:
        return 2.0 + model.checkpoint.file_bytes / LOAD_BYTES_S
    return {"echo": 0.5, "url": 0.0}.get(model.spec.engine)
