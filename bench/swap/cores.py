"""Two CPU models that are busy at once, and one of them alone: tokens per second of all together.

    python -m bench.swap.cores [--rounds 3] [--window-s 10] [--folder FOLDER]

Through the real proxy, which shares the cores between workers that are busy; and once more with
`threads` set by hand to all cores for each, which is what happens when nobody shares them. The model is
that of `bench/gguf`, made on first use. Needs a quiet machine: README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp

from bench.gguf.machine import describe, save
from bench.gguf.model import make
from bench.proxy.overhead import free_port, running, until_open

MODELS = ("one", "two")
ANSWER_TOKENS = 32


@contextlib.contextmanager
def serving(model: Path, threads: int | str) -> Iterator[str]:
    """A swapper with the same file under two names; its URL."""
    entry = {"engine": "llamacpp", "path": str(model), "context": 2048, "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        config, port = Path(folder, "config.json"), free_port()
        config.write_text(json.dumps({"models": dict.fromkeys(MODELS, entry)}))
        argv = [sys.executable, "-m", "swapper", "serve", "--config", str(config)]
        environment = {**os.environ, "XDG_STATE_HOME": folder, "XDG_RUNTIME_DIR": folder}
        with running([*argv, "--listen", f"127.0.0.1:{port}"], environment):
            until_open(port)
            yield f"http://127.0.0.1:{port}"


async def rate(session: aiohttp.ClientSession, url: str, model: str, window_s: float) -> float:
    """Tokens per second of one client that asks again and again, until its last answer."""
    began, tokens = time.perf_counter(), 0
    while True:
        body = {
            "model": model,
            "prompt": "tell ",
            "max_tokens": ANSWER_TOKENS,
            "ignore_eos": True,
            "temperature": 0,
        }
        async with session.post(f"{url}/v1/completions", json=body) as response:
            answer = await response.json()
            if response.status != 200:
                raise SystemExit(f"{model}: {answer}")
        tokens += answer["usage"]["completion_tokens"]
        if (took_s := time.perf_counter() - began) >= window_s:
            return tokens / took_s


async def together(
    session: aiohttp.ClientSession, url: str, models: Sequence[str], window_s: float
) -> float:
    """Tokens per second of all of them."""
    return sum(await asyncio.gather(*(rate(session, url, model, window_s) for model in models)))


async def measure(url: str, rounds: int, window_s: float) -> list[dict[str, float]]:
    """Alone and together by turns, so that a neighbour meets both."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await together(session, url, MODELS, 0.0)  # loads them
        found = []
        for _ in range(rounds):
            load = os.getloadavg()[0]
            alone = await together(session, url, MODELS[:1], window_s)
            both = await together(session, url, MODELS, window_s)
            found.append({"alone": alone, "both": both, "ratio": both / alone, "load": load})
            print({key: round(value, 2) for key, value in found[-1].items()}, flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window-s", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench-gguf")
    given = parser.parse_args()
    model = make(given.folder)
    cores = len(os.sched_getaffinity(0))
    result = describe()
    for name, threads in (("shared", "auto"), ("all cores each", cores)):
        print(f"{name} (threads: {threads})", flush=True)
        with serving(model, threads) as url:
            rounds = asyncio.run(measure(url, given.rounds, given.window_s))
        median = statistics.median(found["ratio"] for found in rounds)
        result[name] = {"rounds": rounds, "median_ratio": median}
        print(f"{name}: two give {median:.2f} of what one gives alone")
    print(f"written to {save('swap-cores', result)}")


if __name__ == "__main__":
    main()
