"""Memory on the host and on devices, as far as a machine without one can tell."""

from __future__ import annotations

from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest
import torch

from backends.paged import start
from backends.paged.arena import DeviceMeter, host_buffer
from backends.serving.engine import EngineError

CUDA = torch.device("cuda:0")


class Runtime:
    """CUDA's, as far as pinning goes."""

    def __init__(self, error: int) -> None:
        self.error = error
        self.pinned: list[tuple[int, int]] = []

    def cudaHostRegister(self, pointer: int, num_bytes: int, flags: int) -> int:
        self.pinned.append((pointer, num_bytes))
        return self.error


def test_an_image_is_pinned_as_large_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(0)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    buffer = host_buffer(5000, CUDA)
    assert runtime.pinned == [(buffer.data_ptr(), 5000)]
    assert buffer.nbytes == 5000
    host_buffer(5000, torch.device("cpu"))
    assert len(runtime.pinned) == 1


def test_what_cannot_be_pinned_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "cudart", lambda: Runtime(2))
    with pytest.raises(EngineError, match="CUDA error 2") as caught:
        host_buffer(5000, CUDA)
    assert caught.value.kind == "out_of_memory"


def test_no_memory_is_asked_for_on_another_gpu(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pinned is pinned by the current device, which then has a context for good."""
    done: list[Any] = []
    monkeypatch.setattr(start, "choose_device", lambda names: torch.device(names[0]))
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: done.append("pinned") or Runtime(2))
    with pytest.raises(EngineError, match="cannot be pinned"):
        start.load({"path": str(tiny), "dtype": "float32", "devices": ["cuda:1"]}, done.append)
    assert done[0] == torch.device("cuda:1")
    assert "pinned" in done


async def test_a_kv_cache_that_has_no_room_is_out_of_memory(tiny: Path, open_engine: Any) -> None:
    with pytest.raises(EngineError) as caught:
        async with open_engine(tiny, kv_bytes=1 << 55):
            pass
    assert caught.value.kind == "out_of_memory"


GCC = CalledProcessError(1, ["gcc", "driver.c"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "out_of_memory"),
        (torch.AcceleratorError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (RuntimeError("Failed to find C compiler. Please specify via CC"), "unsupported"),
        (GCC, "unsupported"),
    ],
    ids=str,
)
def test_what_a_load_lacked_is_told(
    error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> None:
        raise error

    monkeypatch.setattr(start, "_load", fail)
    with pytest.raises(EngineError) as caught:
        start.load({"path": "m"}, lambda share: None)
    assert caught.value.kind == kind


def test_a_process_holds_nothing_of_a_device_it_does_not_use() -> None:
    assert DeviceMeter(torch.device("cpu")).used() == {}


def test_what_a_text_keeps_of_a_step_outlives_it() -> None:
    """A step's hidden states stand where the next step's will."""
    from backends.paged.scheduler import Chunk
    from backends.paged.stepper import Embedding

    text = Embedding.of([1, 2, 3], 0, "", "cls")
    hidden = torch.tensor([[3.0, 4.0]])
    text.take(Chunk(text.sequence, 0, 1), hidden)
    hidden.fill_(0.0)
    text.take(Chunk(text.sequence, 1, 2), torch.ones(2, 2))
    assert text.vector().wait()[0].tolist() == pytest.approx([0.6, 0.8])
