"""NVIDIA GPUs as their driver shows them. No driver, no library, no GPU: an empty list, quietly.

All functions block, for hundreds of milliseconds where the driver has no persistence mode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or MIG slice, now. `processes`: bytes by process number, as far as the driver tells."""

    name: str  # cuda:0, ...: as programs count them that we start
    uuid: str
    product: str
    total: int
    free: int
    processes: Mapping[int, int] = field(default_factory=dict)


def read_gpus(visible: str | None = None) -> list[Gpu]:
    """All GPUs that programs may use.

    `visible` is read as CUDA reads CUDA_VISIBLE_DEVICES (the default), and like there it decides
    which GPU is `cuda:0`. The driver's order is that of the PCI bus.
    """
    nvml = _library()
    if nvml is None:
        return []
    found = [_read(nvml, handle) for handle in _handles(nvml)]
    names = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    chosen = found if names is None else list(_chosen(found, names))
    return [_named(gpu, f"cuda:{number}") for number, gpu in enumerate(chosen)]


_opened: Any = None  # the library, once it has been initialised; that lasts as long as the process
_is_absent = False


def _library() -> Any:
    """NVML, ready for use; None where there is none. Looked for once."""
    global _opened, _is_absent
    if _opened is None and not _is_absent:
        try:
            import pynvml

            pynvml.nvmlInit()
            _opened = pynvml
        except Exception as error:  # noqa: BLE001 - ImportError, NVMLError: in any case no GPUs
            log.debug("no NVIDIA GPUs", reason=str(error))
            _is_absent = True
    return _opened


def _handles(nvml: Any) -> Iterator[Any]:
    """Every device that programs can run on: MIG slices in place of the GPU that was sliced."""
    for index in range(_ask(nvml, nvml.nvmlDeviceGetCount) or 0):
        gpu = _ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
        if gpu is None:
            continue
        slices = list(_slices(nvml, gpu))
        yield from slices or [gpu]


def _slices(nvml: Any, gpu: Any) -> Iterator[Any]:
    mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, gpu)
    if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return
    for index in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, gpu) or 0):
        if part := _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, index):
            yield part


def _read(nvml: Any, handle: Any) -> Gpu:
    """One that does not answer (it fell off the bus) has no memory; it keeps its number."""
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, version=nvml.nvmlMemory_v2)
    memory = memory or _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)  # drivers before 510
    return Gpu(
        name="",
        uuid=_text(_ask(nvml, nvml.nvmlDeviceGetUUID, handle)),
        product=_text(_ask(nvml, nvml.nvmlDeviceGetName, handle)),
        total=int(memory.total) if memory else 0,
        free=int(memory.free) if memory else 0,
        processes=_processes(nvml, handle),
    )


def _processes(nvml: Any, handle: Any) -> dict[int, int]:
    """A program that computes and draws is in both of the driver's lists, with the same number."""
    held: dict[int, int] = {}
    for ask in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        for process in _ask(nvml, ask, handle) or ():
            held[process.pid] = max(held.get(process.pid, 0), process.usedGpuMemory or 0)
    return held


def _ask(nvml: Any, function: Any, *arguments: Any, **options: Any) -> Any:
    """What the driver answers; None for what it does not know or support."""
    try:
        return function(*arguments, **options)
    except nvml.NVMLError:
        return None


def _chosen(gpus: Sequence[Gpu], names: str) -> Iterator[Gpu]:
    """As CUDA does: numbers or beginnings of UUIDs; the first one unknown ends the list."""
    for name in (word.strip() for word in names.split(",")):
        if name.isdigit():
            matches = list(gpus[int(name) : int(name) + 1])
        else:
            matches = [gpu for gpu in gpus if name and gpu.uuid.startswith(name)]
        if len(matches) != 1:
            return
        yield matches[0]


def _named(gpu: Gpu, name: str) -> Gpu:
    return Gpu(name, gpu.uuid, gpu.product, gpu.total, gpu.free, gpu.processes)


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
