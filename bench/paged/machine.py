"""On what, and of what, a figure was measured; kept with every result."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from bench.gguf.machine import save

__all__ = ["describe", "save"]


def describe() -> dict[str, Any]:
    """Machine, versions and the load that was there before."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cpu": f"{platform.processor() or platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
