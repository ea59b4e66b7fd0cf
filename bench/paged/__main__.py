"""All figures of the paged engine: on a GPU the whole table, on a CPU the same, small.

    python -m bench.paged [--shape 8b|100m|tiny] [--only decode,prefill,mixed,sleep] [--in-order] [--label NAME]

Random weights of the given shape (default: Llama-3.1-8B's on a GPU, a tiny one on a CPU), in bfloat16 on
a GPU. Everything is measured through the engine as requests come and go, and set beside what the machine
can do: a step of decoding has to read every weight but the embedding, and the KV cache of all who
decode; a prompt takes two operations a weight and token, and attention. What the machine can do is
measured too: a copy on the device, a product of large matrices, a copy from the host.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backends.paged.start import load
from backends.serving.engine import GenerateRequest, SamplingParams
from bench.paged.limits import Limits, measure_limits
from bench.paged.machine import describe, save
from bench.paged.models import LLAMA_8B, LLAMA_100M, TINY, Shape, write

SHAPES = {"8b": LLAMA_8B, "100m": LLAMA_100M, "tiny": TINY}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of it is measured."""

    context: int
    prefill: int
    many: int  # decoding at once
    answer: int
    mixed: int  # requests of 100 to `longest` tokens in and out
    longest: int


LARGE = Size(context=1024, prefill=2048, many=64, answer=256, mixed=256, longest=1024)
SMALL = Size(context=64, prefill=128, many=8, answer=16, mixed=8, longest=120)


@dataclass(frozen=True, slots=True)
class Line:
    """One figure: what was reached, what the machine allows, or what another program reaches."""

    name: str
    reached: float
    unit: str
    limit: float
    target: float  # share of the limit that is wanted

    def __str__(self) -> str:
        share = self.reached / self.limit if self.limit else 0.0
        return (
            f"{self.name:38} {self.reached:12.1f} {self.unit:6} of {self.limit:12.1f}"
            f"   {share:6.2f}   wanted {self.target:.2f}"
        )


class Bench:
    """One engine, and what is asked of it."""

    def __init__(self, engine: Any, shape: Shape, size: Size, limits: Limits, item: int) -> None:
        self.engine, self.shape, self.size, self.limits = engine, shape, size, limits
        self.item = item  # bytes a number
        self._random = random.Random(0)

    def prompt(self, length: int) -> list[int]:
        return [self._random.randrange(8, self.shape.vocab_size) for _ in range(length)]

    async def stamps(self, prompt: list[int], count: int) -> list[float]:
        """When each token of an answer came."""
        sampling = SamplingParams(temperature=0.0, ignore_eos=True)
        steps = self.engine.generate(GenerateRequest(prompt, count, sampling))
        return [time.perf_counter() async for step in steps for _ in step.tokens]

    async def decode(self, at_once: int) -> Line:
        """Tokens a second while all of them decode, and nobody has come to the end."""
        prompts = [self.prompt(self.size.context) for _ in range(at_once)]
        stamps = await asyncio.gather(*(self.stamps(p, self.size.answer) for p in prompts))
        begun, ended = max(s[0] for s in stamps), min(s[-1] for s in stamps)
        count = sum(begun < stamp <= ended for s in stamps for stamp in s)
        context = self.size.context + self.size.answer // 2
        num_bytes = self._streamed() + at_once * context * self._kv()
        limit = at_once * self.limits.device_copy / num_bytes
        return Line(
            f"decode, {at_once} at once, context {context}",
            count / (ended - begun) if ended > begun else 0.0,
            "tok/s",
            limit,
            0.75 if at_once == 1 else 0.70,
        )

    async def prefill(self) -> Line:
        """Prompt tokens a second, of one prompt at a time."""
        length, taken = self.size.prefill, []
        for _ in range(5):
            prompt, begun = self.prompt(length), time.perf_counter()
            await self.stamps(prompt, 1)
            taken.append(time.perf_counter() - begun)
        shape = self.shape
        weights = shape.num_parameters - shape.vocab_size * shape.hidden_size
        work = 2 * weights * length + 2 * length**2 * shape.hidden_size * shape.num_hidden_layers
        limit = length / (work / self.limits.matrix)
        return Line(f"prefill of {length}", length / statistics.median(taken), "tok/s", limit, 0.60)

    async def mixed(self) -> float:
        """Answer tokens a second over many requests of all lengths that come at once."""
        lengths = list(self.lengths())
        begun = time.perf_counter()
        await asyncio.gather(*(self.stamps(self.prompt(i), o) for i, o in lengths))
        return sum(o for _, o in lengths) / (time.perf_counter() - begun)

    def lengths(self) -> Iterator[tuple[int, int]]:
        """Tokens in and out of every request; the same each time."""
        chance = random.Random(1)
        for _ in range(self.size.mixed):
            yield chance.randint(100, self.size.longest), chance.randint(100, self.size.longest)

    async def sleep(self) -> Line:
        """From the order to wake to the first token."""
        prompt, taken = self.prompt(16), []
        await self.stamps(prompt, 1)
        for _ in range(3):
            await self.engine.sleep()
            begun = time.perf_counter()
            await self.engine.wake()
            await self.stamps(prompt, 1)
            taken.append(time.perf_counter() - begun)
        needed = self.shape.num_parameters * self.item / self.limits.host_copy
        return Line(
            "wake to the first token", 1000 * statistics.median(taken), "ms", 1000 * needed, 1.4
        )

    def _streamed(self) -> int:
        """Bytes of weights that a step reads: not the embedding, unless it is the head too."""
        count = self.shape.num_parameters
        if not self.shape.tie_word_embeddings:
            count -= self.shape.vocab_size * self.shape.hidden_size
        return count * self.item

    def _kv(self) -> int:
        """Bytes of a token's keys and values."""
        shape = self.shape
        width = shape.hidden_size // shape.num_attention_heads * shape.num_key_value_heads
        return 2 * width * shape.num_hidden_layers * self.item


async def measure(bench: Bench, only: set[str], path: Path, device: torch.device) -> list[Line]:
    """The table, line by line as it comes."""
    lines: list[Line] = []

    def take(line: Line) -> None:
        print(line, flush=True)
        lines.append(line)

    try:
        await bench.decode(2)  # whatever is made when it is first needed
        if "decode" in only:
            for at_once in (1, bench.size.many):
                await bench.decode(at_once)
                take(await bench.decode(at_once))
        if "prefill" in only:
            take(await bench.prefill())
        if "sleep" in only:
            take(await bench.sleep())
        ours = await bench.mixed() if "mixed" in only else 0.0
    finally:
        await bench.engine.close()
    if "mixed" in only:
        from bench.paged.peer import continuous_batching

        bench.engine = None  # its memory is the other's now
        theirs = continuous_batching(path, device, list(bench.lengths()), bench.shape.vocab_size)
        name = f"{bench.size.mixed} requests, 100 to {bench.size.longest} tokens"
        take(Line(name, ours, "tok/s", theirs, 3.0))
    return lines


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--only", default="decode,prefill,sleep,mixed")
    parser.add_argument("--label")
    parser.add_argument("--in-order", action="store_true", help="steps that do not overlap")
    given = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda:0" if on_gpu else "cpu")
    name = given.shape or ("8b" if on_gpu else "tiny")
    shape, size = SHAPES[name], LARGE if on_gpu else SMALL
    dtype = torch.bfloat16 if on_gpu else torch.float32
    limits = measure_limits(device, dtype)
    print(limits, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "model", shape, dtype)
        longest = max(2 * size.longest, size.context + size.answer, size.prefill + 16)
        room = max(size.many * (size.context + size.answer), size.mixed * 2 * size.longest // 2)
        options = {"model": "m", "path": str(path), "parallel": max(size.many, size.mixed),
                   "context": longest, "kv_tokens": room}  # fmt: skip
        bench = Bench(load(options, lambda share: None), shape, size, limits, dtype.itemsize)
        if given.in_order:
            bench.engine._stepper.overlaps = False
        lines = asyncio.run(measure(bench, set(given.only.split(",")), path, device))
    label = given.label or f"paged-{device.type}-{name}"
    figures = [{"name": x.name, "reached": x.reached, "unit": x.unit, "limit": x.limit,
                "wanted": x.target} for x in lines]  # fmt: skip
    stored = save(
        label, {"machine": describe(), "shape": name, "limits": limits.stored(), "figures": figures}
    )
    print(f"stored in {stored}")


if __name__ == "__main__":
    main()
