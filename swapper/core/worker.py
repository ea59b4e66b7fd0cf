"""A worker's states, the legal moves between them, and what the scheduler knows of one worker.

    STARTING -> READY <-> DRAINING -> STOPPING -> STOPPED
    READY, DRAINING -> SLEEPING -> WAKING -> READY
        any but the last two -> STOPPING; or FAILED (it went away by itself)

All changes of state go through `Worker.move`; an illegal one is a broken book and raises.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from swapper.core.registry import Bytes, Variant


class WorkerState(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # finishes what is in flight, takes nothing new
    SLEEPING = "sleeping"  # told to give device memory back; done when `is_asleep`
    WAKING = "waking"  # told to take it again
    STOPPING = "stopping"  # told to end; its memory is still taken
    STOPPED = "stopped"
    FAILED = "failed"

    def __repr__(self) -> str:
        return self.name


_S = WorkerState
MOVES: dict[WorkerState, frozenset[WorkerState]] = {
    _S.STARTING: frozenset({_S.READY, _S.STOPPING, _S.FAILED}),
    _S.READY: frozenset({_S.DRAINING, _S.SLEEPING, _S.STOPPING, _S.FAILED}),
    _S.DRAINING: frozenset({_S.READY, _S.SLEEPING, _S.STOPPING, _S.FAILED}),
    _S.SLEEPING: frozenset({_S.WAKING, _S.STOPPING, _S.FAILED}),
    _S.WAKING: frozenset({_S.READY, _S.STOPPING, _S.FAILED}),
    _S.STOPPING: frozenset({_S.STOPPED}),
    _S.STOPPED: frozenset(),
    _S.FAILED: frozenset(),
}
SERVING_STATES = frozenset({_S.READY, _S.DRAINING})  # may have requests in flight
GONE_STATES = frozenset({_S.STOPPED, _S.FAILED})
AWAY_STATES = frozenset({_S.DRAINING, _S.SLEEPING, _S.STOPPING})  # or soon


class IllegalMove(Exception):
    """A worker was to change its state in a way that `MOVES` does not allow."""


@dataclass(frozen=True, slots=True)
class Errand:
    """Why a worker goes: `model` needs so much, and of that so much was missing."""

    model: str
    needs: Bytes
    missing: Bytes


@dataclass(slots=True, eq=False)
class Worker:
    """One worker, from the decision to start it until its processes are gone."""

    id: str
    model: str
    variant: Variant
    started_at: float  # when its load began, or the last time it was told to wake
    room_since: float  # when room began to be made for that; started_at if there was room
    state: WorkerState = WorkerState.STARTING
    ready_at: float | None = None
    idle_since: float | None = None  # None while starting, or while requests are in flight
    stopping_since: float | None = None
    in_flight: Counter[str] = field(default_factory=Counter)  # requests by the API key's holder
    num_in_flight: int = 0
    num_served: int = 0
    urgency: int = 0  # the highest key's priority of what it answers, or answered last
    errand: Errand | None = None  # for whom it goes; None: for its own sake
    can_sleep: bool = False
    is_to_sleep: bool = False  # it goes because somebody asked for that
    cause: str = ""  # why it goes, in a word
    is_asleep: bool = False  # SLEEPING, and has given back what it can
    asleep: Bytes = field(default_factory=dict)  # what it holds, or will hold, while SLEEPING
    reserved: Bytes = field(default_factory=dict)  # at its start: the estimate
    measured: Bytes = field(default_factory=dict)  # the truth, as far as it is known
    stays_s: float | None = (
        None  # idle time before it is unloaded, as a client chose; None: the ttl
    )
    threads: int = 0  # CPU threads it was told to use; 0: it was told nothing

    def move(self, state: WorkerState) -> None:
        """Change the state; raises IllegalMove and changes nothing when there is no such move."""
        if state not in MOVES[self.state]:
            raise IllegalMove(f"worker {self.id}: {self.state.name} -> {state.name}")
        self.state = state

    def take(self, key: str, priority: int) -> None:
        """One more request is in flight, of that key's holder, with the key's priority."""
        self.urgency = max(self.urgency, priority) if self.num_in_flight else priority
        self.in_flight[key] += 1
        self.num_in_flight += 1
        self.idle_since = None

    @property
    def is_idle(self) -> bool:
        """READY with nothing in flight."""
        return self.state is WorkerState.READY and self.num_in_flight == 0

    @property
    def is_at_rest(self) -> bool:
        """Idle or asleep: unloaded when its ttl is over."""
        return self.is_idle or self.is_asleep

    @property
    def is_leaving(self) -> bool:
        """Its memory, or most of it, is on its way back."""
        if self.state is WorkerState.SLEEPING:
            return not self.is_asleep
        return self.state in (WorkerState.DRAINING, WorkerState.STOPPING)
