"""What a worker says of the devices that it is to compute on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

import torch

from backends.paged.start import check_heads, choose_device
from backends.serving.engine import EngineError

CARDS = [
    SimpleNamespace(name="NVIDIA GeForce RTX 3090", major=8, minor=6),
    SimpleNamespace(name="Tesla T4", major=7, minor=5),
]


@pytest.fixture(autouse=True)
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(CARDS))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: CARDS[device.index])


@pytest.mark.parametrize(
    ("devices", "chosen"),
    [(None, "cuda:0"), (("cuda:0",), "cuda:0"), ((), "cpu"), (("cpu",), "cpu")],
)
def test_it_computes_where_it_is_told_to(devices: tuple[str, ...] | None, chosen: str) -> None:
    assert choose_device(devices) == torch.device(chosen)


def test_a_gpu_that_is_too_old_is_refused_by_name() -> None:
    with pytest.raises(EngineError) as refused:
        choose_device(("cuda:1",))
    assert refused.value.kind == "unsupported"
    assert "Tesla T4 of compute capability 7.5" in refused.value.reason
    assert "need 8.0" in refused.value.reason


def test_a_gpu_of_another_make_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    with pytest.raises(EngineError, match="NVIDIA"):
        choose_device(None)


@pytest.mark.parametrize("devices", [("cuda:2",), ("cuda:0", "cuda:1")])
def test_what_is_not_there_or_too_much_is_refused(devices: tuple[str, ...]) -> None:
    with pytest.raises(EngineError, match=r"torch sees 2 GPUs|one GPU"):
        choose_device(devices)


def test_heads_that_no_kernel_fits_are_refused_on_a_gpu_alone() -> None:
    check_heads(256, torch.device("cuda:0"))
    check_heads(512, torch.device("cpu"))
    with pytest.raises(EngineError, match="heads of 257 dimensions"):
        check_heads(257, torch.device("cuda:0"))
