"""What the core is told, in the past tense, and what it asks for, in the imperative.

Frozen values only, so that a run can be written down and played again. Times are seconds on one
monotonic clock, memory is bytes by device name (`host`, `cuda:0`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from swapper.core.registry import Bytes, Registry, Settings
from swapper.errors import RefusalKind

RequestId: TypeAlias = int
WorkerId: TypeAlias = str  # "coder#3": the third worker of model coder; never used twice


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A request for `model` (a configured name, aliases resolved) wants a worker.

    `arrived_at` is earlier than now for one that is tried again: it keeps its place in the queue.
    `key` is the name of the API key's holder, `priority` the key's.
    """

    request_id: RequestId
    model: str
    arrived_at: float | None = None
    priority: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """The request is over: answered, failed, refused or its client gone, whether it waited or ran.

    The one way out for every request that arrived; telling it twice is an error.
    """

    request_id: RequestId


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A starting worker serves. `measured` is what it takes, as far as it was measured."""

    worker_id: WorkerId
    measured: Bytes = field(default_factory=dict)
    can_sleep: bool = False  # it gives device memory back when told to, and takes it again


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker did not come up, or went away by itself.

    `kind` is of the worker contract (`out_of_memory`, `bad_file`, `crashed`, ...) or
    `load_timeout`, `missing_command`; `reason` one sentence fit for a client.
    """

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerMeasured:
    """What a worker that has answered requests really takes, at its fullest so far."""

    worker_id: WorkerId
    memory: Bytes


@dataclass(frozen=True, slots=True)
class WorkerSlept:
    """The worker that was told to has given back what it can. `memory` is what it still holds, by
    device; empty: it did not say."""

    worker_id: WorkerId
    memory: Bytes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerWoke:
    """The worker that was told to serves again. `memory` is what it holds now, by device; empty: it did
    not say."""

    worker_id: WorkerId
    memory: Bytes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SleepFailed:
    """The worker did not go to sleep, or did not wake, as it was told to. It is of no more use."""

    worker_id: WorkerId
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The worker's processes are gone and reaped. `failure` is None when it was asked to stop."""

    worker_id: WorkerId
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """`total` and `free` as the device says; `ours`: what our workers hold of the part not free."""

    total: int
    free: int
    ours: int = 0


@dataclass(frozen=True, slots=True)
class DevicesRead:
    """How full the devices really are; memory held by other programs is not ours to give.

    It took a while: of workers that ended after `began_at` it may tell the old.
    """

    readings: Mapping[str, DeviceReading]
    began_at: float = math.inf


@dataclass(frozen=True, slots=True)
class LoadRequested:
    """Somebody (preload, an admin) wants the model resident, without a request."""

    model: str


@dataclass(frozen=True, slots=True)
class UnloadRequested:
    """Somebody wants the model's worker gone. Answers in flight finish; waiting requests are refused."""

    model: str


@dataclass(frozen=True, slots=True)
class SleepRequested:
    """Somebody wants the model's worker asleep. Answers in flight finish; who waits has it woken again.
    One that cannot sleep, or does not serve, stays as it is."""

    model: str


@dataclass(frozen=True, slots=True)
class PinChosen:
    """Somebody decided whether the model is pinned, whatever its configuration says: until they decide
    otherwise, or the configuration comes to say the same, whose word it is from then on."""

    model: str
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class StayChosen:
    """A client chose how long the model's worker is to stay idle, in place of the ttl, until it goes:
    0, no longer than it is busy; infinity, as long as its room is not needed. Of a pinned model no less
    than its ttl."""

    model: str
    stays_s: float


@dataclass(frozen=True, slots=True)
class MemoryLent:
    """Somebody outside has asked for memory, until a time: it is not ours from now on, and workers
    leave it as soon as they can. `loan` is used once."""

    loan: str
    memory: Bytes
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class MemoryTakenBack:
    """A loan is over before its time. Of one that is over already it is no news."""

    loan: str


@dataclass(frozen=True, slots=True)
class RegistryReplaced:
    """The configuration was read anew.

    Workers of `changed` models (served in another way now) and of removed ones drain and go; requests
    that wait for a removed model are refused.
    """

    registry: Registry
    changed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """Take nothing new; refuse what waits; stop idle workers, and busy ones when they are done."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """A deadline named by `Scheduler.next_deadline` has come."""


Event: TypeAlias = (
    RequestArrived
    | RequestEnded
    | WorkerReady
    | WorkerMeasured
    | WorkerSlept
    | WorkerWoke
    | SleepFailed
    | WorkerExited
    | DevicesRead
    | LoadRequested
    | UnloadRequested
    | SleepRequested
    | PinChosen
    | StayChosen
    | MemoryLent
    | MemoryTakenBack
    | RegistryReplaced
    | ShutdownRequested
    | TimePassed
)


# ---------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True)
class Grant:
    """The waiting request may use the worker now. It counts as in flight until `RequestEnded`."""

    request_id: RequestId
    worker_id: WorkerId
    swap_s: float  # of its waiting, how long room was made by moving others out
    load_s: float  # and how long the worker loaded


@dataclass(frozen=True, slots=True)
class Reject:
    """The waiting request gets no worker. The front still reports `RequestEnded`."""

    request_id: RequestId
    kind: RefusalKind
    reason: str
    retry_after_s: float
    cause: str | None = None  # the failure kind, when a load failed


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker for the model. `reserved` is set aside for it from this moment.

    `settings` are what the core chose for this start (layers on the GPU, devices, threads), to be
    laid over the model's own options.
    """

    worker_id: WorkerId
    model: str
    reserved: Bytes
    settings: Settings
    load_timeout_s: float


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Stop the worker: orderly, by force after `grace_s`. Answered by `WorkerExited`."""

    worker_id: WorkerId
    grace_s: float


@dataclass(frozen=True, slots=True)
class SleepWorker:
    """Have the idle worker give its devices' memory back. Answered within `timeout_s` by `WorkerSlept`
    or `SleepFailed`, or by its exit."""

    worker_id: WorkerId
    timeout_s: float


@dataclass(frozen=True, slots=True)
class WakeWorker:
    """Have the sleeping worker serve again. Answered within `timeout_s` by `WorkerWoke` or
    `SleepFailed`, or by its exit."""

    worker_id: WorkerId
    timeout_s: float


@dataclass(frozen=True, slots=True)
class SetThreads:
    """Tell the running worker to compute with so many threads from its next step on."""

    worker_id: WorkerId
    threads: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Something worth remembering over restarts was learned of a model."""

    model: str
    settings: Settings
    load_s: float
    memory: Bytes  # empty: nothing new
    wake_s: float | None = None  # None: nothing new
    asleep: Bytes = field(default_factory=dict)  # what it holds then; empty: nothing new


@dataclass(frozen=True, slots=True)
class Decided:
    """One line for the decision log: whom, what, why, on which figures."""

    model: str
    action: str  # start, drain, stop, sleep, wake, spare, expire, refuse, fail, pin, unpin, stay
    reason: str
    cause: str = ""  # in a word: why a worker goes (`departures.Cause`), or how it failed


Command: TypeAlias = (
    Grant
    | Reject
    | StartWorker
    | StopWorker
    | SleepWorker
    | WakeWorker
    | SetThreads
    | Measured
    | Decided
)
