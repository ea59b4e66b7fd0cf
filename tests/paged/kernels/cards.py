"""The GPUs that kernels are laid out for."""

from __future__ import annotations

from dataclasses import dataclass

from backends.paged.device import Gpu


@dataclass(frozen=True)
class Card:
    capability: int  # 89: compute capability 8.9
    gpu: Gpu


def _card(capability: int, shared_kib: int, num_multiprocessors: int) -> Card:
    return Card(capability, Gpu(capability // 10, shared_kib * 1024, num_multiprocessors))


# Shared memory of a program: CUDA C++ Programming Guide, technical specifications per compute capability.
CARDS = {
    "A100": _card(80, 163, 108),
    "RTX 3090": _card(86, 99, 82),
    "RTX 4090": _card(89, 99, 128),
    "H200": _card(90, 227, 132),
    "B200": _card(100, 227, 148),
    "RTX 5090": _card(120, 99, 170),
}
HEAD_DIMS = (64, 80, 96, 128, 256)
