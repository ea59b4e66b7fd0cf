"""What is known of the demand for one model: who waits, how it comes, what a load costs, how it fails.

Kept over loads and unloads of the model, which is why it is not the worker's.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from swapper.core.events import Failure
from swapper.core.queue import Queue
from swapper.core.registry import ModelSpec

RATE_HALF_LIFE_S = 600.0  # how long a use counts in "how often it is wanted"
FAILURES_FORGOTTEN_S = 60.0  # a worker that lived this long starts with a clean sheet
LONGEST_BACK_OFF_S = 60.0
UNKNOWN_LOAD_S = 5.0  # where there is nothing to go by
ANSWER_PART = 0.125  # of the average: an answer's
PAUSES_KEPT = 8  # enough to know a habit by, few enough to drop it


@dataclass(slots=True)
class Demand:
    """Everything the scheduler remembers of one model beside its worker."""

    spec: ModelSpec
    load_s: float | None  # the last load measured, or the first guess
    wake_s: float | None = None  # what it took to wake, the last time
    sleeps: bool = False  # its worker can: what comes back after it has gone is a wake
    answer_s: float = 0.0  # what its answers take lately, on the average
    stop_s: float = 0.0  # what its worker took to go, the last time
    queue: Queue = field(default_factory=Queue)
    wanted_since: float | None = None  # a load asked for without a request
    room_since: float | None = None  # when room began to be made for it
    # The last pauses between an answer and the next request; at first, that of one who asks at once.
    pauses: deque[float] = field(default_factory=lambda: deque([0.0], PAUSES_KEPT))
    last_end: float | None = None
    turn_ended_at: float = -math.inf  # when its worker was last gone, having been asked to go
    gave_way_to: str | None = None  # the model that it was asked to go for
    failure: Failure | None = None
    num_failures: int = 0  # in a row
    retry_at: float = -math.inf
    short_of_memory: bool = False  # its last load ran out of memory and is tried once more
    _rate: float = 0.0
    _rate_at: float = 0.0

    @property
    def is_wanted(self) -> bool:
        """Somebody waits for it."""
        return self.wanted_since is not None or len(self.queue) > 0

    @property
    def waits_since(self) -> float | None:
        """Since when it is in line for a turn; None while nobody waits.

        Since its oldest wish came, or since its last turn ended with some of its queue still there:
        else what is left of a long queue would have turn after turn before anybody who came later.
        """
        since = self.wanted_since
        if self.queue:
            oldest = self.queue.oldest_at
            since = oldest if since is None else min(oldest, since)
        return None if since is None else max(since, self.turn_ended_at)

    def load_or(self, like_s: float = UNKNOWN_LOAD_S) -> float:
        """Seconds until it is back: to wake, where that is how it comes, or to load; `like_s` where
        nothing is known of it."""
        if self.sleeps and self.wake_s is not None:
            return self.wake_s
        return like_s if self.load_s is None else self.load_s

    @property
    def priority(self) -> int:
        """Of the most urgent wish."""
        return self.spec.priority + (self.queue.priority if self.queue else 0)

    def count_use(self, now: float) -> None:
        """One more request came: for the rate, an exponentially decayed count."""
        self._rate = self.uses(now) + 1.0
        self._rate_at = now

    def uses(self, now: float) -> float:
        """How often the model was wanted lately: requests, each counting half after the half-life."""
        return self._rate * math.exp2((self._rate_at - now) / RATE_HALF_LIFE_S)

    def learn_pause(self, now: float) -> None:
        """A request came to a model with nothing in flight, resident or not: how long was it away?"""
        if self.last_end is not None:
            self.pauses.append(now - self.last_end)

    def learn_answer(self, took_s: float) -> None:
        """An answer is over; the first one is all there is to go by."""
        self.answer_s += (took_s - self.answer_s) * (ANSWER_PART if self.answer_s else 1.0)

    def fail(self, failure: Failure, now: float, *, lived_s: float, was_ready: bool) -> None:
        """Note a load that failed or a worker that crashed, and when to try again.

        A first crash of a worker that was up is nobody's fault: the next request may try at once.
        """
        self.num_failures = 1 if lived_s > FAILURES_FORGOTTEN_S else self.num_failures + 1
        self.failure = failure
        free_tries = 1 if was_ready else 0
        doublings = self.num_failures - 1 - free_tries
        back_off = min(LONGEST_BACK_OFF_S, 2.0 ** min(doublings, 10)) if doublings >= 0 else 0.0
        self.retry_at = now + back_off

    def serve_out(self) -> None:
        """A worker that was of use ended as it was asked to: what failed before is no row."""
        self.num_failures = 0

    def recover(self) -> None:
        """The model is up."""
        self.failure = None
        self.short_of_memory = False
