"""What clients do to a swapper, and what they see: the scenarios of this benchmark and of its tests.

The models are `command` workers (`worker.py`) that take 1.0 s to get ready and 100 ms for an answer.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

READY_S, ANSWER_S = 1.0, 0.1
WORKER = Path(__file__).with_name("worker.py")


def configuration(
    models: str, starts: Path, *, max_loaded: int = 1, stop_s: float = 0.0, **extra: object
) -> str:
    """Of one model for each letter. `extra` goes to the models; `stop_s` is how long the first one
    takes to stop. JSON, which is YAML too."""
    return json.dumps(
        {
            "max_loaded": max_loaded,
            "models": {
                model: {
                    "engine": "command",
                    "cmd": _command(starts, stop_s if model == models[0] else 0.0),
                    "stop_grace": "20s",
                    **extra,
                }
                for model in models
            },
        }
    )


def _command(starts: Path, stop_s: float) -> list[str]:
    times = [str(READY_S), str(ANSWER_S), str(stop_s)]
    return [sys.executable, "-I", "-S", str(WORKER), "${port}", "${model}", str(starts), *times]


@dataclass(frozen=True, slots=True)
class Answer:
    """One request, as its client saw it. Times in seconds, `at_s` since the scenario began."""

    model: str
    at_s: float
    took_s: float
    status: int


@dataclass(slots=True)
class Clients:
    """Of one swapper."""

    url: str
    session: aiohttp.ClientSession
    answers: list[Answer] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    async def ask(self, model: str, at_s: float = 0.0) -> Answer:
        """Ask once, when it is time."""
        await asyncio.sleep(self.began + at_s - time.perf_counter())
        sent = time.perf_counter()
        body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            await response.read()
        took_s = time.perf_counter() - sent
        answer = Answer(model, sent - self.began, took_s, response.status)
        self.answers.append(answer)
        return answer

    async def unload(self, model: str) -> None:
        async with self.session.post(f"{self.url}/swapper/v1/models/{model}/unload") as response:
            await response.read()

    def restart_clock(self) -> None:
        """What follows is another scenario."""
        self.answers, self.began = [], time.perf_counter()

    @property
    def makespan_s(self) -> float:
        return max(answer.at_s + answer.took_s for answer in self.answers)

    @property
    def num_failed(self) -> int:
        return sum(answer.status != 200 for answer in self.answers)

    def times(self, model: str | None = None) -> list[float]:
        """From request to answer, of one model or of all."""
        return [answer.took_s for answer in self.answers if model in (None, answer.model)]


@asynccontextmanager
async def clients(url: str) -> AsyncIterator[Clients]:
    """As many connections as there are requests."""
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield Clients(url, session)


def percentile(times: Sequence[float], part: float) -> float:
    """The smallest of the times that `part` of them do not exceed."""
    return sorted(times)[max(0, math.ceil(part * len(times)) - 1)]


# ---------------------------------------------------------------- scenarios


async def ping_pong(run: Clients, models: str, requests: int = 10, think_s: float = 0.0) -> None:
    """One client for each model, who asks again when answered, and after having thought."""

    async def client(model: str) -> None:
        for number in range(requests):
            if number:
                await asyncio.sleep(think_s)
            await run.ask(model)

    await asyncio.gather(*map(client, models))


async def lone(run: Clients, *, busy_s: float = 15.0, is_short: bool = False) -> Answer:
    """`a` is asked every 50 ms, so that it is never idle; `b` once, at 1 s. Gives b's answer.

    Short: a is let alone as soon as b is answered.
    """
    asking = asyncio.create_task(run.ask("b", at_s=1.0))
    busy = []
    for number in range(int(busy_s / 0.05)):
        busy.append(asyncio.create_task(run.ask("a", at_s=number * 0.05)))
        await asyncio.sleep(run.began + number * 0.05 - time.perf_counter())
        if is_short and asking.done():
            break
    answer, *_ = await asyncio.gather(asking, *busy)
    return answer


async def alternating(run: Clients, count: int = 40) -> None:
    """Requests for a and b in turn, 50 ms apart, whether or not others are answered."""
    await asyncio.gather(*(run.ask("ab"[n % 2], at_s=n * 0.05) for n in range(count)))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How long answers of b took before and while its neighbour stopped."""

    before: list[float]
    meanwhile: list[float]
    stop_took_s: float

    def delay_s(self, part: float) -> float:
        """How much longer they took, at a percentile."""
        return percentile(self.meanwhile, part) - percentile(self.before, part)


async def slow_stop(run: Clients) -> Neighbours:
    """`a` takes its time to stop; `b`, loaded too, is asked every 20 ms before and meanwhile."""
    await asyncio.gather(run.ask("a"), run.ask("b"))
    run.restart_clock()
    await asyncio.gather(*(run.ask("b", at_s=n * 0.02) for n in range(100)))
    before = run.times()
    run.restart_clock()
    stopping = asyncio.create_task(run.unload("a"))
    asked = []
    while not stopping.done():
        asked.append(asyncio.create_task(run.ask("b")))
        await asyncio.sleep(0.02)
    stop_took_s = time.perf_counter() - run.began
    await asyncio.gather(*asked)
    return Neighbours(before, run.times(), stop_took_s)
