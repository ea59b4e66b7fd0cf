"""That no request waits for a compiler."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")

import torch

from backends.paged.architectures import describe
from backends.paged.arena import cache_shape
from backends.paged.batch import KvCache
from backends.paged.decoder import Decoder
from backends.paged.runner import Runner
from backends.paged.scheduler import Chunk
from backends.paged.sequence import BLOCK_SIZE, Sequence, cdiv
from tests.paged.checkpoints import LLAMA
from tests.paged.fake_device import CUDA, fake_device

CONTEXT = 100_000
SMALL = LLAMA | {"vocab_size": 300, "max_position_embeddings": CONTEXT}
MODELS: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "mixtral": SMALL
    | {
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    },
}


def chunk(seat: int, past: int, new: int) -> Chunk:
    sequence = Sequence(seat, [1] * (past + new), 9)
    sequence.seat = seat
    sequence.blocks = list(range(cdiv(past + new, BLOCK_SIZE)))
    return Chunk(sequence, past, new)


STEPS = {
    "short": [chunk(0, 39, 1)],
    **{f"{n} of them": [chunk(i, 39, 1) for i in range(n)] for n in (2, 3, 7, 16, 33, 300)},
    "long": [chunk(0, 90_000, 1)],
    "two, one of them long": [chunk(0, 90_000, 1), chunk(1, 3, 1)],
    "short prompt": [chunk(0, 0, 17)],
    "end of a long prompt": [chunk(0, 90_000, 900)],
    "all at once": [chunk(0, 90_000, 1), chunk(1, 30, 1), chunk(2, 3, 27), chunk(3, 0, 900)],
}


@pytest.mark.parametrize("model", MODELS)
def test_a_worker_that_is_ready_compiles_nothing(model: str) -> None:
    decoder = Decoder(describe(MODELS[model])[0], torch.bfloat16, "meta", CONTEXT)
    with fake_device() as device:
        runner = Runner(decoder, CUDA, max_running=300, context=CONTEXT)
        decoder.place(torch.empty(decoder.num_bytes, dtype=torch.uint8, device=CUDA))
        memory = torch.empty(1 << 20, dtype=torch.uint8, device=CUDA)
        runner.cache = KvCache.view(memory, *cache_shape(decoder))
        runner.warm_up(2048)
        before = len(device.compiled)
        for name, chunks in STEPS.items():
            runner.run(chunks)
            assert len(device.compiled) == before, name
