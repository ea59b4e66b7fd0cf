"""Who waits for one model, and who of them is next.

Higher priority goes first. Among equals the API key that has the fewest requests in flight goes first, so
that one key's batch of hundreds delays another key's single request by one service time and not by the
batch; within one key it is first come, first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from swapper.core.events import RequestId


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request in a queue."""

    request_id: RequestId
    arrived_at: float
    deadline: float
    priority: int = 0
    key: str = ""  # the name of the API key's holder


class Queue:
    """Waiting requests of one model; a lane for each priority and key, each in order of arrival."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[int, str], deque[Waiting]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Waiting]:
        for lane in self._lanes.values():
            yield from lane

    @property
    def oldest_at(self) -> float:
        """When the one that waits longest arrived. The queue is not empty."""
        return min(lane[0].arrived_at for lane in self._lanes.values())

    @property
    def first_deadline(self) -> float:
        """When the first of them has waited too long. The queue is not empty."""
        return min(lane[0].deadline for lane in self._lanes.values())

    @property
    def priority(self) -> int:
        """The highest priority that waits. The queue is not empty."""
        return max(priority for priority, _ in self._lanes)

    def add(self, waiting: Waiting) -> None:
        """Take a request in, at its place by arrival: one that is tried again is not the last."""
        lane = self._lanes.setdefault((waiting.priority, waiting.key), deque())
        index = len(lane)
        while index and lane[index - 1].arrived_at > waiting.arrived_at:
            index -= 1
        lane.insert(index, waiting)
        self._length += 1

    def pop(self, num_in_flight: Callable[[str], int]) -> Waiting:
        """Take out who is next; `num_in_flight` tells of a key how many requests it has under way."""
        lane = next(iter(self._lanes))
        if len(self._lanes) > 1:
            lane = min(self._lanes, key=lambda lane: self._rank(lane, num_in_flight))
        waiting = self._lanes[lane].popleft()
        self._left(lane)
        return waiting

    def remove(self, waiting: Waiting) -> None:
        """Take one out of turn. Raises ValueError if it is not there."""
        lane = waiting.priority, waiting.key
        self._lanes[lane].remove(waiting)
        self._left(lane)

    def late(self, now: float) -> list[Waiting]:
        """Whose deadline has passed."""
        found = []
        for lane in self._lanes.values():
            for waiting in lane:
                if waiting.deadline > now:
                    break
                found.append(waiting)
        return found

    def _rank(
        self, lane: tuple[int, str], num_in_flight: Callable[[str], int]
    ) -> tuple[int, int, float]:
        priority, key = lane
        return -priority, num_in_flight(key), self._lanes[lane][0].arrived_at

    def _left(self, lane: tuple[int, str]) -> None:
        self._length -= 1
        if not self._lanes[lane]:
            del self._lanes[lane]
