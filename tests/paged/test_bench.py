"""The benchmark of the paged engine runs, small, where there is no GPU. Its figures mean nothing here."""

from __future__ import annotations

from pathlib import Path

import torch

from backends.paged.start import load
from bench.paged.__main__ import SMALL, Bench, measure
from bench.paged.limits import measure_limits
from bench.paged.models import TINY, write


async def test_every_line_of_the_table(tmp_path: Path) -> None:
    cpu, dtype = torch.device("cpu"), torch.float32
    path = write(tmp_path / "model", TINY, dtype)
    options = {"model": "m", "path": str(path), "parallel": 8, "context": 256, "kv_tokens": 2048}
    engine = load({**options, "threads": 1, "devices": []}, lambda share: None)
    bench = Bench(engine, TINY, SMALL, measure_limits(cpu, dtype), dtype.itemsize)
    lines = await measure(bench, {"decode", "prefill", "sleep", "mixed"}, path, cpu)
    assert [line.name for line in lines] == [
        "decode, 1 at once, context 72",
        "decode, 8 at once, context 72",
        "prefill of 128",
        "wake to the first token",
        "8 requests, 100 to 120 tokens",
    ]
    assert all(line.reached > 0 for line in lines)
    assert all(line.limit > 0 for line in lines[:-1])  # the last is a peer's, which wants a GPU
