from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from tests.paged.checkpoints import write_checkpoint


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models this small are slowed down by more threads, on a busy machine tenfold."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny")


OpenEngine = Callable[..., Any]


@pytest.fixture
def open_engine() -> OpenEngine:
    """`async with open_engine(path, option=...) as engine`; `overlaps`: steps as on a device."""
    from backends.paged.start import load

    @asynccontextmanager
    async def opened(path: Path, *, overlaps: bool = False, **options: Any) -> AsyncIterator[Any]:
        given = {"model": "tiny", "path": str(path), "threads": 1, "devices": []} | options
        engine = load(given, lambda share: None)
        engine._stepper.overlaps = overlaps
        try:
            yield engine
        finally:
            await engine.close()

    return opened
