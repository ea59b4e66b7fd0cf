"""What a machine can do at most, measured: bytes and operations a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes a second read by a copy on the device and from the host, operations a second of a product."""

    device_copy: float
    host_copy: float
    matrix: float

    def __str__(self) -> str:
        return (
            f"the machine: memory {self.device_copy / 1e9:.1f} GB/s, "
            f"link {self.host_copy / 1e9:.1f} GB/s, matrices {self.matrix / 1e12:.2f} Tops/s"
        )

    def stored(self) -> dict[str, float]:
        return asdict(self)


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """The limits of `device`, with numbers as large as it takes to reach them."""
    on_gpu = device.type == "cuda"
    size = (1 << 30) if on_gpu else (1 << 27)
    here = torch.ones(size, dtype=torch.uint8, device=device)
    there = torch.empty_like(here)
    host = torch.ones(size, dtype=torch.uint8, pin_memory=on_gpu)
    side = 8192 if on_gpu else 1024
    left = torch.randn(side, side, device=device).to(dtype)
    return Limits(
        device_copy=2 * size / _seconds(lambda: there.copy_(here), device),
        host_copy=size / _seconds(lambda: there.copy_(host, non_blocking=True), device),
        matrix=2 * side**3 / _seconds(lambda: left @ left, device),
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The best of some runs."""

    def once() -> float:
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    once()
    return min(once() for _ in range(10))
