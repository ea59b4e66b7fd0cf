"""The paged engine beside transformers' own generate, on a CPU.

    python -m bench.paged.cpu [--threads 2] [--model demo|100m] [--label NAME]

Prompts of 64 random tokens, answers of 64, greedy, float32. transformers answers one request after the
other, as a script would. The paged engine is measured within this process and as swapper runs it, a
worker behind HTTP that streams: the difference is what HTTP and JSON cost. The same tokens must come.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROMPT, ANSWER, REQUESTS = 64, 64, 16
ALONE = 5  # requests of who asks one after the other
PEER = "transformers, 1 at once"

Ask = Callable[[list[int]], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the engine runs: how it is asked for an answer's number of tokens, and what CPU time it took."""

    ask: Ask
    cpu_seconds: Callable[[], float]


def prompts(vocab_size: int) -> list[list[int]]:
    """The same for everybody, no two with a common beginning."""
    chance = random.Random(0)
    return [[chance.randrange(8, vocab_size) for _ in range(PROMPT)] for _ in range(REQUESTS)]


@cache
def _peer(path: Path) -> Any:
    """transformers' model, in the process that is transformers'."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def transformers_rate(path: Path, threads: int, asked: list[list[int]]) -> float:
    """Tokens a second of transformers, one request after the other."""
    import torch

    torch.set_num_threads(threads)
    model = _peer(path)
    begun = time.perf_counter()
    for prompt in asked:
        with torch.inference_mode():
            model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                do_sample=False,
                min_new_tokens=ANSWER,
                max_new_tokens=ANSWER,
                pad_token_id=0,
            )
    return ANSWER * len(asked) / (time.perf_counter() - begun)


async def rate(place: Place, asked: list[list[int]], clients: int) -> float:
    """Tokens a second of so many clients, each with its next request as soon as it has an answer."""
    left = iter(asked)

    async def client() -> int:
        return sum([await place.ask(prompt) for prompt in left])

    begun = time.perf_counter()
    counts = await asyncio.gather(*(client() for _ in range(clients)))
    return sum(counts) / (time.perf_counter() - begun)


@asynccontextmanager
async def engine(
    path: Path, threads: int, parallel: int = REQUESTS, answer: int = ANSWER
) -> AsyncIterator[Place]:
    """The engine within this process."""
    from backends.paged.start import load
    from backends.serving.engine import GenerateRequest, SamplingParams

    loaded = load(_options(path, threads, parallel), lambda share: None)
    sampling = SamplingParams(temperature=0.0, ignore_eos=True)

    async def ask(prompt: list[int]) -> int:
        steps = loaded.generate(GenerateRequest(prompt, answer, sampling))
        return sum([len(step.tokens) async for step in steps])

    try:
        yield Place(ask, time.process_time)
    finally:
        await loaded.close()


@asynccontextmanager
async def worker(
    path: Path, threads: int, parallel: int = REQUESTS, answer: int = ANSWER
) -> AsyncIterator[Place]:
    """The engine as a worker, asked for streams over its socket."""
    import aiohttp
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/worker.sock"
        options = _options(path, threads, parallel)
        process = await asyncio.to_thread(_start, address, Path(folder), options)
        times = psutil.Process(process.pid).cpu_times
        async with aiohttp.ClientSession(
            "http://worker", connector=aiohttp.UnixConnector(address, limit=0)
        ) as session:

            async def ask(prompt: list[int]) -> int:
                body = {"model": "m", "prompt": prompt, "max_tokens": answer, "temperature": 0,
                        "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
                async with session.post("/v1/completions", json=body) as response:
                    lines = [line async for line in response.content if b'"usage":{' in line]
                return int(json.loads(lines[-1][6:])["usage"]["completion_tokens"])

            try:
                yield Place(ask, lambda: times().user + times().system)
            finally:
                process.kill()
                process.wait()


def _start(address: str, folder: Path, options: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A worker that is ready."""
    file = folder / "options.json"
    file.write_text(json.dumps(options))
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "backends.paged", "--listen", f"unix:{address}", "--options", str(file)],
        cwd=ROOT, env=os.environ | {"SWAPPER_REPORT_FD": str(write)}, pass_fds=[write],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with open(read, encoding="utf-8") as report:
        events = (json.loads(line) for line in report)
        ready = next((event for event in events if event["event"] != "loading"), None)
    if ready is None or ready["event"] != "ready":
        raise SystemExit(f"the worker did not get ready: {ready}")
    return process


def _options(path: Path, threads: int, parallel: int) -> dict[str, Any]:
    return {"model": "m", "path": str(path), "threads": threads, "devices": [],
            "parallel": parallel, "context": 2048, "kv_tokens": 256 * parallel}  # fmt: skip


async def measure(path: Path, threads: int, vocab_size: int, rounds: int) -> list[dict[str, float]]:
    """By round, tokens a second of each: all take turns, as a machine's speed changes with its neighbours."""
    asked = prompts(vocab_size)
    loop = asyncio.get_running_loop()
    found: list[dict[str, float]] = []
    with ProcessPoolExecutor(1, get_context("spawn")) as peer:

        async def transformers(count: int) -> float:
            return await loop.run_in_executor(peer, transformers_rate, path, count, asked[:ALONE])

        async with engine(path, threads) as inside, worker(path, threads) as served:
            places = {"engine": inside, "worker": served}
            for place in places.values():
                await rate(place, asked[:2], 2)
            # A small model is quicker on one thread; it gets what suits it best, as ours does.
            await transformers(threads)
            rates = {count: await transformers(count) for count in {1, threads}}
            best = max(rates, key=lambda count: rates[count])
            for turn in range(rounds):
                figures = {PEER: await transformers(best)}
                for clients in (1, REQUESTS):
                    for name, place in places.items():
                        # Another first token, so that nothing of it is cached.
                        fresh = [[turn, clients, *prompt[2:]] for prompt in asked]
                        fresh = fresh if clients > 1 else fresh[:ALONE]
                        figures[f"{name}, {clients} at once"] = await rate(place, fresh, clients)
                found.append(figures)
    return found


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", choices=("demo", "100m"), action="append")
    parser.add_argument("--label", default="paged-cpu")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    import torch

    from bench.paged.machine import describe, save
    from bench.paged.models import DEMO, LLAMA_100M, write

    results: dict[str, Any] = {
        "machine": describe(),
        "threads": given.threads,
        "models": {},
    }
    for name in given.model or ("demo", "100m"):
        with tempfile.TemporaryDirectory() as folder:
            path, vocab_size = DEMO, 1024
            if name == "100m":
                path, vocab_size = write(Path(folder) / "m", LLAMA_100M, torch.float32), 32000
            found = asyncio.run(measure(path, given.threads, vocab_size, given.rounds))
        results["models"][name] = found
        print(f"{name}, {given.threads} threads, tokens a second, and the ratio of a round:")
        for what in found[0]:
            figure = statistics.median(turn[what] for turn in found)
            ratios = sorted(turn[what] / turn[PEER] for turn in found)
            middle = statistics.median(ratios)
            print(
                f"  {what:28} {figure:8.1f} {middle:7.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )
        save(given.label, results)


if __name__ == "__main__":
    main()
