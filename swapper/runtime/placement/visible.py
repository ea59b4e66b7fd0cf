"""The GPUs a worker is shown. It cannot take memory of others, and counts its own from `cuda:0` on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from swapper.core.registry import Bytes, Settings
from swapper.runtime.placement import WorkerFacts


@dataclass(frozen=True, slots=True)
class VisibleGpus:
    """GPUs by our names, in the worker's order. None: it sees what we see, by the same names."""

    names: tuple[str, ...] | None
    environment: Mapping[str, str]

    def settings(self, settings: Settings) -> Settings:
        """The same settings, with devices named as the worker sees them."""
        if not self.names:
            return settings
        return {**settings, "devices": [f"cuda:{index}" for index in range(len(self.names))]}

    def facts(self, facts: WorkerFacts) -> WorkerFacts:
        """What the worker said of itself, with devices named as we see them."""
        return replace(facts, memory=self.our_names(facts.memory)) if self.names else facts

    def our_names(self, memory: Bytes) -> Bytes:
        """The same memory, with devices named as we see them."""
        ours = {f"cuda:{index}": name for index, name in enumerate(self.names or ())}
        return {ours.get(name, name): size for name, size in memory.items()}


def visible_gpus(settings: Settings, uuids: Mapping[str, str]) -> VisibleGpus:
    """For a start with such settings. `uuids`: of our GPUs by name.

    A worker for which nothing was chosen sees all of them, one with all layers on the CPU none: to
    its library, each GPU it sees is worth a context, and scratch memory that nobody has set aside.
    """
    if settings.get("gpu_layers") == 0:
        return VisibleGpus((), {"CUDA_VISIBLE_DEVICES": ""})
    devices = settings.get("devices")
    names = tuple(map(str, devices)) if isinstance(devices, list | tuple) else ()
    if not names or not all(uuids.get(name) for name in names):
        return VisibleGpus(None, {})
    shown = ",".join(uuids[name] for name in names)
    environment = {"CUDA_VISIBLE_DEVICES": shown, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return VisibleGpus(names, environment)
