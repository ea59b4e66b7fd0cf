"""The traces: who asks for what, when, and what is asked for after which answer.

A trace is a forest. A root arrives at a fixed time; every other request is sent some time after the
answer to another, so that clients that wait for their answers are the same closed loop whatever the
policy does to them. Generators are seeded: a trace is a function of its name and the load time.

Times are those of real use: answers 0.1 to 20 s, tools and people that take 0.3 s to a minute. Where
people come by themselves (bursts, Zipf), they come as often as a box with such loads can bear.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MODELS = "abcdefghijkl"


@dataclass(slots=True, eq=False)
class Request:
    """One request, and those that its answer calls forth: (seconds after it, request)."""

    model: str
    service_s: float
    then: list[tuple[float, Request]] = field(default_factory=list)


@dataclass(slots=True)
class Trace:
    """What is asked of a box with `room` places, where every load takes `load_s`."""

    name: str
    load_s: float
    room: int = 1
    seed: int = 0  # of those of its name, which one
    roots: list[tuple[float, Request]] = field(default_factory=list)

    @property
    def stop_s(self) -> float:
        """What a worker takes to go, the part of a swap that is not loading."""
        return 0.05 * self.load_s

    def requests(self) -> Iterator[Request]:
        """All of them, parents before children."""
        pending = [request for _, request in self.roots]
        while pending:
            request = pending.pop()
            yield request
            pending += [child for _, child in request.then]

    @property
    def models(self) -> list[str]:
        return sorted({request.model for request in self.requests()})

    def arrive(self, at: float, model: str, service_s: float) -> Request:
        """A request that comes by itself."""
        request = Request(model, service_s)
        self.roots.append((at, request))
        return request

    def client(self, start: float, steps: list[tuple[float, str, float]]) -> None:
        """Somebody who waits for each answer; `steps`: (pause before it, model, seconds of service)."""
        request = self.arrive(start + steps[0][0], *steps[0][1:])
        for pause, model, service_s in steps[1:]:
            child = Request(model, service_s)
            request.then.append((pause, child))
            request = child


def answer(dice: random.Random, typical_s: float) -> float:
    """The length of an answer: log-normal about the typical one, within 0.1 and 20 s."""
    return round(min(20.0, max(0.1, typical_s * dice.lognormvariate(0.0, 0.6))), 3)


def agents(trace: Trace, dice: random.Random, count: int, think_s: float, turns: int = 20) -> None:
    """Agents, each with its model, that run a tool between an answer and the next request."""
    for model in MODELS[:count]:
        steps = [
            (think_s and think_s * dice.uniform(0.8, 1.2), model, answer(dice, 1.0))
            for _ in range(turns)
        ]
        trace.client(dice.uniform(0.0, 0.5), steps)


def collation(trace: Trace, dice: random.Random) -> None:
    """Two models asked in turn every 50 ms, whatever happens."""
    for n in range(40):
        trace.arrive(0.05 * n, "ab"[n % 2], 0.1)


def chat_and_titles(trace: Trace, dice: random.Random, turns: int = 15) -> None:
    """A person chats with one model; after every answer the interface asks a small one for a title."""
    chat = trace.arrive(0.0, "a", answer(dice, 5.0))
    for _ in range(turns):
        chat.then.append((0.0, Request("b", answer(dice, 0.4))))
        following = Request("a", answer(dice, 5.0))
        chat.then.append((dice.uniform(3.0, 40.0), following))
        chat = following


def bursts(trace: Trace, dice: random.Random, count: int = 14) -> None:
    """Three models; somebody sends a handful of requests to one of them at a time."""
    at = 0.0
    for _ in range(count):
        model = dice.choice(MODELS[:3])
        for _ in range(dice.randint(4, 12)):
            trace.arrive(at + dice.uniform(0.0, 1.0), model, answer(dice, 1.5))
        at += dice.expovariate(1.0 / (2.0 + 3.0 * trace.load_s))


def batch_and_person(trace: Trace, dice: random.Random) -> None:
    """A job keeps four requests in flight at one model; a person now and then asks another."""
    for _ in range(4):
        trace.client(0.0, [(0.0, "a", answer(dice, 2.0)) for _ in range(30)])
    turns = [(dice.uniform(5.0, 20.0), "b", answer(dice, 4.0)) for _ in range(6)]
    trace.client(0.0, turns)


def chat_and_embeddings(trace: Trace, dice: random.Random) -> None:
    """People whose every question is embedded first; and now and then a folder is indexed."""
    for _ in range(2):
        steps = []
        for _ in range(12):
            steps += [(dice.uniform(5.0, 30.0), "e", 0.1), (0.0, "a", answer(dice, 4.0))]
        trace.client(0.0, steps)
    for start in (40.0, 150.0):
        trace.client(start, [(0.02, "e", answer(dice, 0.2)) for _ in range(25)])


def people(
    dice: random.Random, load_s: float, at: float = 0.0
) -> Iterator[tuple[float, str, float]]:
    """They come when they like, without end, and want twelve models like 1/rank: (time, model, seconds
    of service)."""
    weights = [1.0 / rank for rank in range(1, 13)]
    while True:
        at += dice.expovariate(1.0 / (0.7 + 0.6 * load_s))
        yield at, dice.choices(MODELS, weights)[0], answer(dice, 3.0)


def zipf(trace: Trace, dice: random.Random) -> None:
    """Twelve models, wanted like 1/rank, by people who come when they like."""
    trace.room = 3
    for at, model, service_s in itertools.islice(people(dice, trace.load_s), 150):
        trace.arrive(at, model, service_s)


def lone_and_busy(trace: Trace, dice: random.Random) -> None:
    """A model that is never idle for 15 loads, and one request for another."""
    for n in range(300):
        trace.arrive(0.05 * n * trace.load_s, "a", min(20.0, 0.1 * trace.load_s))
    trace.arrive(trace.load_s, "b", 0.1)


Generator = Callable[[Trace, random.Random], None]
GENERATORS: dict[str, Generator] = {
    "two agents": lambda trace, dice: agents(trace, dice, 2, 0.0),
    "two agents, 0.3 s tools": lambda trace, dice: agents(trace, dice, 2, 0.3),
    "four agents": lambda trace, dice: agents(trace, dice, 4, 0.0),
    "four agents, 0.3 s tools": lambda trace, dice: agents(trace, dice, 4, 0.3),
    "chat and titles": lambda trace, dice: chat_and_titles(trace, dice),
    "bursts": lambda trace, dice: bursts(trace, dice),
    "batch and a person": batch_and_person,
    "chat and embeddings": chat_and_embeddings,
    "zipf, 12 in 3": zipf,
    "alternating": collation,
    "one beside a busy one": lone_and_busy,
}
LOADS_S = (1.0, 40.0)


def trace_of(name: str, load_s: float, seed: int = 0) -> Trace:
    """The trace of that name for a box with such loads; the same one every time."""
    trace = Trace(name, load_s, seed=seed)
    GENERATORS[name](trace, random.Random(f"{name} {seed}" if seed else name))
    return trace


def all_traces(seed: int = 0) -> Iterator[Trace]:
    """Every trace, with short loads and with long ones."""
    for name in GENERATORS:
        for load_s in LOADS_S:
            yield trace_of(name, load_s, seed)
