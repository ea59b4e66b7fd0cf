"""What only a GPU can show: kernels that run, graphs that are replayed, memory that is given back.

SWAPPER_GPU_TESTS_ON=cpu runs what can run there, which shows no more than that these tests are right.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

STAND_IN = os.environ.get("SWAPPER_GPU_TESTS_ON")


def _has_device() -> bool:
    if find_spec("torch") is None or find_spec("tokenizers") is None:
        return False
    import torch

    return bool(STAND_IN) or torch.cuda.is_available()


HAS_DEVICE = _has_device()
# Without one the others are not even imported, and one test says so.
collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("test_*.py")
    if not HAS_DEVICE and path.name != "test_there_is_one.py"
]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, or what stands in for it."""
    import torch

    return torch.device(STAND_IN or "cuda:0")


@pytest.fixture(scope="session")
def gpu(device: torch.device) -> torch.device:
    """The GPU; nothing stands in for it."""
    if device.type != "cuda":
        pytest.skip("nothing stands in for a GPU here")
    return device


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.paged.checkpoints import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny")


OpenEngine = Callable[..., Any]


@pytest.fixture(scope="session")
def open_engine(device: torch.device) -> OpenEngine:
    """`async with open_engine(path, option=...) as engine`: in float32 on the device, if not told otherwise."""
    from backends.paged.start import load

    @asynccontextmanager
    async def opened(path: Path, **options: Any) -> AsyncIterator[Any]:
        devices = [] if device.type == "cpu" else [str(device)]
        given = {
            "model": "tiny",
            "path": str(path),
            "threads": 1,
            "devices": devices,
            "dtype": "float32",
        }
        engine = load(given | options, lambda share: None)
        try:
            yield engine
        finally:
            await engine.close()

    return opened
