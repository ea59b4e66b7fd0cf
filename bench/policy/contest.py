"""One trace, every contestant, the same simulated world; and the bound that hindsight must keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.policy.contestants import FirstCome, LoadedFirst, Places, Planned, Turn
from bench.policy.traces import Request, Trace
from swapper.core import events as ev
from swapper.core.scheduler import Scheduler
from swapper.core.tenure import QUANTUM
from swapper.core.worker import WorkerState
from tests.core.world import Outcome, World, model, registry


@dataclass(frozen=True)
class Score:
    """What one contestant did with one trace."""

    waited_s: float  # by all requests together, from arrival to grant
    longest_s: float  # by one
    counted_s: float  # by one, without the time in which answers in flight were finished
    loads: int
    lost: float  # share of the places' time, until the last answer, that went into loads and stops
    makespan_s: float


def bound_s(trace: Trace) -> float:
    """How long a request may wait at most by our rule, beside what is in flight when turns end.

    Every other model has at most one turn before it: a quantum, a load and a stop, in as many places
    as there are; then comes its own load, after a stop if its own worker was just sent away. What
    answers in flight take to finish, once their model takes nothing new, comes on top.
    """
    num_others = len(trace.models) - 1
    swap_s = trace.load_s + trace.stop_s
    quanta_s = num_others * QUANTUM * 2 * trace.load_s
    return quanta_s + (num_others // trace.room) * swap_s + swap_s


class WatchedWorld(World):
    """Keeps when some worker finished what it had in flight and took nothing new."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._drains: list[tuple[float, float]] = []
        self._drains_since: float | None = None

    def tell(self, event: ev.Event) -> None:
        super().tell(event)
        if self._drains_since is not None and not is_draining(self.scheduler):
            self._drains.append((self._drains_since, self.now))
            self._drains_since = None
        elif self._drains_since is None and is_draining(self.scheduler):
            self._drains_since = self.now

    def counted_s(self, outcome: Outcome) -> float:
        """How long it waited, less what was so finished meanwhile."""
        assert outcome.granted_at is not None
        shared = (
            min(end, outcome.granted_at) - max(start, outcome.arrived_at)
            for start, end in self._drains
        )
        return outcome.wait_s - sum(s for s in shared if s > 0)


def is_draining(scheduler: object) -> bool:
    if isinstance(scheduler, Places):
        return scheduler.is_draining()
    return any(w.state is WorkerState.DRAINING for w in scheduler.books.workers.values())


def play(trace: Trace, make: Callable[..., object]) -> Score:
    """Let a contestant serve the trace."""
    specs = [
        model(name, load_s=trace.load_s, parallel=1000, queue_timeout_s=1e9)
        for name in trace.models
    ]
    world = WatchedWorld(
        registry(*specs, host=trace.room), load_s=trace.load_s, stop_s=trace.stop_s, make=make
    )

    def send(request: Request) -> None:
        world.request(request.model, request.service_s, lambda: follow(request))

    def follow(request: Request) -> None:
        for delay_s, child in request.then:
            world.at(world.now + delay_s, lambda child=child: send(child))

    for at, root in trace.roots:
        world.at(at, lambda root=root: send(root))
    world.run()
    waits = [outcome.wait_s for outcome in world.outcomes]
    ends = max(outcome.ended_at for outcome in world.outcomes)
    swaps = len(world.starts) * trace.load_s + (len(world.starts) - trace.room) * trace.stop_s
    lost = swaps / (trace.room * ends)
    counted_s = max(map(world.counted_s, world.outcomes))
    return Score(sum(waits), max(waits), counted_s, len(world.starts), lost, ends)


CONTESTANTS: dict[str, Callable[[Trace], Score]] = {
    "swapper": lambda trace: play(trace, Scheduler),
    "first come": lambda trace: play(trace, lambda _: FirstCome(trace.room)),
    "loaded first": lambda trace: play(trace, lambda _: LoadedFirst(trace.room)),
}


def replay(trace: Trace, turns: list[Turn]) -> Score:
    return play(trace, lambda _: Planned(trace.room, turns))
