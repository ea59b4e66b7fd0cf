"""What a token costs the host: planning, telling, HTTP and JSON, which a device's steps have to hide.

    python -m bench.paged.host [--clients 64 256] [--rounds 3] [--label NAME]

A model of next to nothing answers on one thread, greedily. `engine`: CPU time of a token within this
process, without what a device does, layers and choosing. `HTTP`: what a worker takes beyond the engine, with a stream for every client. Both share one interpreter: their sum is the
least that a worker can take for a token, however quick its device is.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from bench.paged.cpu import Place, engine, rate, worker

PROMPT, ANSWER = 16, 128


class Device:
    """The CPU time of what a device would do."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time every forward pass, head and choice."""
        from backends.paged import chooser
        from backends.paged.decoder import Decoder

        places = [(Decoder, "forward"), (Decoder, "logits"), (chooser, "sample")]
        whole = [getattr(owner, name) for owner, name in places]
        for (owner, name), function in zip(places, whole, strict=True):
            setattr(owner, name, self._timed(function))
        try:
            yield
        finally:
            for (owner, name), function in zip(places, whole, strict=True):
                setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            begun = time.thread_time()
            try:
                return function(*args)
            finally:
                self.seconds += time.thread_time() - begun

        return call


async def cost(
    place: Place, clients: int, rounds: int, device: Device
) -> list[tuple[float, float]]:
    """By round, CPU seconds of a token and, of these, the device's."""
    random, found = Random(0), []
    for turn in range(rounds + 1):
        asked = [[random.randrange(8, 1024) for _ in range(PROMPT)] for _ in range(2 * clients)]
        cpu, model = place.cpu_seconds(), device.seconds
        await rate(place, asked, clients)
        if turn:  # the first is for caches
            tokens = len(asked) * ANSWER
            found.append(((place.cpu_seconds() - cpu) / tokens, (device.seconds - model) / tokens))
    return found


async def measure(path: Path, clients: int, rounds: int) -> dict[str, float]:
    """Microseconds a token, the median of the rounds."""
    device = Device()
    with device.timed():
        async with engine(path, 1, clients, ANSWER) as place:
            inside = await cost(place, clients, rounds, device)
    async with worker(path, 1, clients, ANSWER) as place:
        served = await cost(place, clients, rounds, Device())
    whole = statistics.median(cpu for cpu, _ in inside)
    model = statistics.median(own for _, own in inside)
    behind = statistics.median(cpu for cpu, _ in served)
    figures = {"engine": whole - model, "HTTP": behind - whole, "both": behind - model}
    return {name: 1e6 * seconds for name, seconds in figures.items()}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--label", default="paged-host")
    given = parser.parse_args()

    import torch

    from bench.paged.machine import describe, save
    from bench.paged.models import NEXT_TO_NOTHING, write

    results: dict[str, Any] = {"machine": describe(), "microseconds a token": {}}
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "m", NEXT_TO_NOTHING, torch.float32)
        for clients in given.clients:
            figures = asyncio.run(measure(path, clients, given.rounds))
            results["microseconds a token"][clients] = figures
            line = ", ".join(f"{name} {figure:.1f}" for name, figure in figures.items())
            print(f"{clients} clients, microseconds a token: {line}")
    save(given.label, results)


if __name__ == "__main__":
    main()
