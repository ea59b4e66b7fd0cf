"""A world in which time is a number: the real scheduler, and workers and clients that are simulated.

Workers take their model's load time to come up and stop time to go; requests take their service time
once granted. Everything happens in the order of one heap, so a run is a function of its inputs, and
after every event the books are checked.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from swapper.core import events as ev
from swapper.core.registry import ModelSpec, Registry, Variant
from swapper.core.scheduler import Scheduler


def model(name: str, size: int = 1, **changes: object) -> ModelSpec:
    """A model that takes `size` bytes of the host, with requests of its own kind unlimited."""
    values: dict[str, object] = {"load_s": 1.0, "ttl_s": 0.0, "engine": "echo", **changes}
    return ModelSpec(name=name, variants=(Variant({"host": size}),), **values)  # type: ignore[arg-type]


def registry(*specs: ModelSpec, host: int = 1, **limits: int) -> Registry:
    return Registry({spec.name: spec for spec in specs}, {"host": host}, limits)


@dataclass
class Outcome:
    """One request's fate."""

    model: str
    arrived_at: float
    granted_at: float | None = None
    ended_at: float | None = None
    refused: str | None = None

    @property
    def wait_s(self) -> float:
        assert self.granted_at is not None
        return self.granted_at - self.arrived_at

    @property
    def latency_s(self) -> float:
        assert self.ended_at is not None
        return self.ended_at - self.arrived_at


@dataclass
class World:
    """Runs a scheduler against simulated workers. Times in seconds from 0."""

    registry: Registry
    load_s: float | Mapping[str, float] = 1.0
    stop_s: float | Mapping[str, float] = 0.0
    now: float = 0.0
    starts: list[tuple[float, str]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    decisions: list[ev.Decided] = field(default_factory=list)
    wake_s: float | None = None  # workers can sleep, and take so long to wake
    failing: dict[str, ev.Failure] = field(default_factory=dict)  # models whose loads fail
    make: Callable[[Registry], Scheduler] = Scheduler  # or another that takes the same events

    def __post_init__(self) -> None:
        self.scheduler = self.make(self.registry)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ids = itertools.count(1)
        self._requests: dict[int, tuple[Outcome, float, Callable[[], None]]] = {}

    # -- driving

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._heap, (when, next(self._order), action))

    def request(
        self, name: str, service_s: float = 0.1, then: Callable[[], None] = lambda: None
    ) -> Outcome:
        """A request arrives now; `then` is called when it is over, however it ends."""
        outcome = Outcome(name, self.now)
        self.outcomes.append(outcome)
        request_id = next(self._ids)
        self._requests[request_id] = (outcome, service_s, then)
        self.tell(ev.RequestArrived(request_id, name))
        return outcome

    def requests(self, name: str, times: list[float], service_s: float = 0.1) -> None:
        """Open-loop arrivals."""
        for when in times:
            self.at(when, lambda: self.request(name, service_s) and None)

    def client(
        self,
        name: str,
        count: int,
        service_s: float = 0.1,
        think_s: float = 0.0,
        start: float = 0.0,
    ) -> None:
        """A closed loop: `count` requests, each sent `think_s` after the one before was answered."""

        def send(left: int) -> None:
            if left:
                self.request(
                    name, service_s, lambda: self.at(self.now + think_s, lambda: send(left - 1))
                )

        self.at(start, lambda: send(count))

    def run(self, until: float = 1e9) -> World:
        """Let everything happen up to `until`, or until nothing more is due."""
        while True:
            due = self._heap[0][0] if self._heap else float("inf")
            deadline = self.scheduler.next_deadline()
            if min(due, deadline) > until or min(due, deadline) == float("inf"):
                return self
            self.now = max(self.now, min(due, deadline))
            if deadline < due:
                self.tell(ev.TimePassed())
            else:
                heapq.heappop(self._heap)[2]()

    def tell(self, event: ev.Event) -> None:
        """Hand the scheduler an event, and do what it says."""
        for command in self.scheduler.handle(event, self.now):
            self._do(command)
        self.scheduler.check_integrity()

    # -- what the commands do

    def _do(self, command: ev.Command) -> None:
        match command:
            case ev.StartWorker(worker_id, name):
                self.starts.append((self.now, name))
                failure = self.failing.get(name)
                done: ev.Event = ev.WorkerReady(worker_id, can_sleep=self.wake_s is not None)
                if failure is not None:
                    done = ev.WorkerExited(worker_id, failure)
                self.at(self.now + _of(self.load_s, name), lambda: self.tell(done))
            case ev.StopWorker(worker_id):
                gone = ev.WorkerExited(worker_id)
                stop_s = _of(self.stop_s, worker_id.rpartition("#")[0])
                self.at(self.now + stop_s, lambda: self.tell(gone))
            case ev.SleepWorker(worker_id):
                slept = ev.WorkerSlept(worker_id)
                self.at(self.now, lambda: self.tell(slept))
            case ev.WakeWorker(worker_id):
                woke = ev.WorkerWoke(worker_id)
                self.at(self.now + (self.wake_s or 0.0), lambda: self.tell(woke))
            case ev.Grant(request_id):
                outcome, service_s, _ = self._requests[request_id]
                outcome.granted_at = self.now
                self.at(self.now + service_s, lambda: self._end(request_id))
            case ev.Reject(request_id, kind):
                self._requests[request_id][0].refused = kind
                self.at(self.now, lambda: self._end(request_id))
            case ev.Decided():
                self.decisions.append(command)

    def _end(self, request_id: int) -> None:
        outcome, _, then = self._requests.pop(request_id)
        outcome.ended_at = self.now
        self.tell(ev.RequestEnded(request_id))
        then()


def _of(value: float | Mapping[str, float], name: str) -> float:
    return value if isinstance(value, (int, float)) else value[name]
