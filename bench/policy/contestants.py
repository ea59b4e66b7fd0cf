"""The other contestants, as schedulers that take the same events and give the same commands.

They know nothing of failures, deadlines or sizes: every model takes one place of `room`.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence

from swapper.core import events as ev

Turn = tuple[str, int]  # a model, and the number of requests it answers before it goes


class Places:
    """What the contestants share: places, who is in them, and who waits."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.queue: deque[tuple[ev.RequestId, str]] = deque()  # by arrival
        self.model_of: dict[ev.RequestId, str] = {}  # in flight
        self.in_flight: dict[str, int] = {}  # READY models
        self.loading: set[str] = set()
        self.leaving: set[str] = set()  # drains or stops
        self.used: dict[str, int] = {}  # model -> number of its last grant
        self._served = itertools.count(1)
        self._generation = itertools.count(1)
        self._worker_ids: dict[str, str] = {}
        self._commands: list[ev.Command] = []

    def next_deadline(self) -> float:
        return math.inf

    def check_integrity(self) -> None:
        pass

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        match event:
            case ev.RequestArrived(request_id, model):
                self.queue.append((request_id, model))
            case ev.RequestEnded(request_id):
                self.in_flight[self.model_of.pop(request_id)] -= 1
            case ev.WorkerReady(worker_id):
                model = worker_id.rpartition("#")[0]
                self.loading.remove(model)
                self.in_flight[model] = 0
            case ev.WorkerExited(worker_id):
                self.leaving.remove(worker_id.rpartition("#")[0])
        self.plan()
        for model in [m for m in self.leaving if self.in_flight.get(m) == 0]:
            del self.in_flight[model]
            self._commands.append(ev.StopWorker(self._worker_ids[model], 0.0))
        commands, self._commands = self._commands, []
        return commands

    def plan(self) -> None:
        raise NotImplementedError

    def serves(self, model: str) -> bool:
        return model in self.in_flight and model not in self.leaving

    def has_room(self) -> bool:
        gone = self.leaving - set(self.in_flight)  # stopping: their places are still taken
        return len(self.in_flight) + len(self.loading) + len(gone) < self.room

    def is_draining(self) -> bool:
        return any(self.in_flight.get(model) for model in self.leaving)

    def grant(self, position: int) -> None:
        request_id, model = self.queue[position]
        del self.queue[position]
        self.model_of[request_id] = model
        self.in_flight[model] += 1
        self.used[model] = next(self._served)
        self._commands.append(ev.Grant(request_id, self._worker_ids[model], 0.0, 0.0))

    def start(self, model: str) -> None:
        self._worker_ids[model] = f"{model}#{next(self._generation)}"
        self.loading.add(model)
        self._commands.append(ev.StartWorker(self._worker_ids[model], model, {}, {}, 0.0))

    def least_recently_used(self, models: Sequence[str]) -> str:
        return min(models, key=lambda model: (self.used.get(model, 0), model))


class FirstCome(Places):
    """Strict order of arrival: what is not loaded waits until all before it were granted."""

    def plan(self) -> None:
        while self.queue and self.serves(self.queue[0][1]):
            self.grant(0)
        if not self.queue:
            return
        model = self.queue[0][1]
        if model in self.loading or model in self.leaving or self.loading:
            return
        if self.has_room():
            self.start(model)
        elif not self.leaving:
            idle = [m for m, count in self.in_flight.items() if not count]
            self.leaving.add(self.least_recently_used(idle or list(self.in_flight)))


class LoadedFirst(Places):
    """llama-swap's: whoever asks for a loaded model is served at once, even past others; a swap waits
    until a resident has nothing in flight; in order of arrival among the rest; nothing is held."""

    def plan(self) -> None:
        position = 0
        while position < len(self.queue):
            if self.serves(self.queue[position][1]):
                self.grant(position)
            else:
                position += 1
        claimed = len(self.leaving)  # places on their way back are for the first in the queue
        for model in dict.fromkeys(model for _, model in self.queue):
            if model in self.loading:
                continue
            if claimed:
                claimed -= 1
            elif self.has_room() and model not in self.leaving:
                self.start(model)
            else:
                idle = [m for m, n in self.in_flight.items() if not n and m not in self.leaving]
                if idle:
                    self.leaving.add(self.least_recently_used(idle))


class Planned(Places):
    """Plays a plan made with hindsight: turns, in the order in which they start."""

    def __init__(self, room: int, turns: Sequence[Turn]) -> None:
        super().__init__(room)
        self.turns = deque(turns)
        self.left: dict[str, int] = {}

    def is_draining(self) -> bool:
        return any(count and self.left[model] <= 0 for model, count in self.in_flight.items())

    def plan(self) -> None:
        position = 0
        while position < len(self.queue):
            model = self.queue[position][1]
            if self.serves(model) and self.left[model] > 0:
                self.grant(position)
                self.left[model] -= 1
            else:
                position += 1
        wanted = {model for _, model in self.queue}
        for model, _ in itertools.islice(self.turns, len(self.leaving), None):
            done = [m for m, n in self.in_flight.items() if not n and self.left[m] <= 0]
            done = [m for m in done if m not in self.leaving]
            if model not in wanted or not done or self.has_room():
                break
            self.leaving.add(done[0])
        while self.turns and self.turns[0][0] in wanted and self.has_room():
            model, count = self.turns[0]
            if model in self.loading or model in self.in_flight or model in self.leaving:
                break
            self.turns.popleft()
            self.left[model] = count
            self.start(model)
