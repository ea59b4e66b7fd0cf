"""A worker on the device, as swapper starts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.paged.test_worker import started

pytestmark = pytest.mark.gpu


@pytest.fixture
def devices(device: torch.device) -> list[str]:
    return [] if device.type == "cpu" else [str(device)]


def test_it_answers_sleeps_and_wakes(tiny: Path, tmp_path: Path, devices: list[str]) -> None:
    with started(tmp_path, path=str(tiny), devices=devices) as worker:
        assert worker.first["event"] == "ready"
        assert set(devices) <= set(worker.first["memory"])
        before = worker.complete("hello").json()["choices"][0]["text"]
        assert worker.http.post("/sleep").status_code == 200
        assert worker.complete("hello").status_code == 503
        assert worker.http.post("/wake").status_code == 200
        assert worker.complete("hello").json()["choices"][0]["text"] == before


def test_a_cache_beyond_the_device_is_reported_as_too_large(
    tiny: Path, tmp_path: Path, gpu: torch.device, devices: list[str]
) -> None:
    with started(tmp_path, path=str(tiny), devices=devices, kv_bytes=1 << 42) as worker:
        assert worker.first["event"] == "failed"
        assert worker.first["kind"] == "out_of_memory"


def test_a_device_that_is_not_there_is_named(tiny: Path, tmp_path: Path) -> None:
    with started(tmp_path, path=str(tiny), devices=["cuda:77"]) as worker:
        assert worker.first["event"] == "failed"
        assert "cuda:77" in worker.first["reason"]


def test_what_it_says_it_holds_is_what_the_driver_says(
    tiny: Path, tmp_path: Path, gpu: torch.device, devices: list[str]
) -> None:
    free = torch.cuda.mem_get_info(gpu)[0]
    options: dict[str, Any] = {"kv_tokens": 1 << 21, "parallel": 8}
    with started(tmp_path, path=str(tiny), devices=devices, **options) as worker:
        taken = free - torch.cuda.mem_get_info(gpu)[0]
        assert worker.first["memory"]["cuda:0"] == pytest.approx(taken, rel=0.15)
