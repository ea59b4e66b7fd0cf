"""What hindsight would have done: the least total waiting among schedules that keep the same bound.

A schedule is the order in which models get their turns, and for each turn the number of requests that
it answers; then it takes nothing new, finishes what is in flight and goes. Like every contestant it
loads only what somebody waits for, grants at once what a model in its turn can take, and keeps every
single wait within the bound; unlike them it knows all that will come.

The search walks over states of the world, from decision to decision: at every event at which some
model is ready and another is waited for outside, either nothing changes or a turn ends. States are
kept level by level (a level: so many requests granted), the best `width` of each by a lower bound of
what they lead to. While no level overflows the search is exact; otherwise the least bound of what was
dropped says how much better than the best found any schedule can be.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field

from bench.policy.contestants import Turn
from bench.policy.traces import Trace

EMPTY, LOADING, READY, ENDED, STOPPING = range(5)
END, ARRIVAL, GONE, LOADED = range(4)  # kinds of event, in the order of their handling


class Problem:
    """A trace with its requests numbered."""

    def __init__(self, trace: Trace, longest_wait_s: float) -> None:
        self.room, self.load_s, self.stop_s = trace.room, trace.load_s, trace.stop_s
        self.limit_s = longest_wait_s + 1e-6
        requests = list(trace.requests())
        number = {id(request): n for n, request in enumerate(requests)}
        names = trace.models
        self.names = names
        self.model = [names.index(request.model) for request in requests]
        self.service_s = [request.service_s for request in requests]
        self.then = [[(d, number[id(r)]) for d, r in request.then] for request in requests]
        self.roots = [(at, number[id(request)]) for at, request in trace.roots]
        self.totals = tuple(self.model.count(m) for m in range(len(names)))
        self.work_s = self._work_left()

    def _work_left(self) -> list[list[tuple[float, float]]] | None:
        """By model and number of requests granted: the service and the thought that are still to come.

        Only where every model has one client, and every client one model; None elsewhere.
        """
        if len(self.roots) != len(self.names) or any(len(then) > 1 for then in self.then):
            return None
        work: list[list[tuple[float, float]]] = [[] for _ in self.names]
        for _, root in self.roots:
            chain, pauses = [root], [0.0]
            while self.then[chain[-1]]:
                pause_s, child = self.then[chain[-1]][0]
                chain.append(child)
                pauses.append(pause_s)
            left = [(0.0, 0.0)]
            for request, pause_s in zip(reversed(chain), reversed(pauses), strict=True):
                left.append((left[-1][0] + self.service_s[request], left[-1][1] + pause_s))
            work[self.model[root]] = left[::-1]
            if any(self.model[request] != self.model[root] for request in chain):
                return None
        return work


@dataclass(slots=True)
class State:
    """The world at a moment. `places`: [model, mode, number in flight, granted in this turn]."""

    now: float
    heap: list[tuple[float, int, int, int]]  # (time, kind, place, request)
    places: list[list[int]]
    waiting: list[list[tuple[float, float, int]]]  # by model: (arrival, drained_s then, request)
    targets: list[int]  # models whose turn comes next, in order
    waited_s: float  # by those granted
    granted: list[int]  # by model
    num_granted: int
    order: tuple[int, object] | None  # the turns so far, newest first: (model, rest)
    ended: tuple[tuple[int, int, int], object] | None = None  # (model, turn of it, grants)
    turn_of: list[int] = field(default_factory=list)  # by model: turns so far
    drained_s: float = 0.0  # how long, so far, some place finished what it had in flight

    def copy(self) -> State:
        return State(
            self.now,
            self.heap.copy(),
            [p.copy() for p in self.places],
            [w.copy() for w in self.waiting],
            self.targets.copy(),
            self.waited_s,
            self.granted.copy(),
            self.num_granted,
            self.order,
            self.ended,
            self.turn_of.copy(),
            self.drained_s,
        )


@dataclass(slots=True)
class Found:
    """The best schedule found, and whether it is proved to be the best there is."""

    waited_s: float
    turns: list[Turn]
    at_least_s: float  # no schedule waits less; equal to `waited_s` when the search was exact


class Search:
    """Beam search, level by level."""

    def __init__(self, problem: Problem, width: int, best_s: float = math.inf) -> None:
        self.problem = problem
        self.width = width
        self.best_s = best_s
        self.best: State | None = None
        self.at_least_s = math.inf  # of what was dropped

    def start(self) -> State:
        """The world before anything has come."""
        heap = [(at, ARRIVAL, -1, request) for at, request in self.problem.roots]
        heapq.heapify(heap)
        places = [[-1, EMPTY, 0, 0] for _ in range(self.problem.room)]
        zeros = [0 for _ in self.problem.names]
        nobody: list[list[tuple[float, float, int]]] = [[] for _ in zeros]
        return State(0.0, heap, places, nobody, [], 0.0, zeros, 0, None, turn_of=zeros.copy())

    def run(self) -> Found | None:
        problem = self.problem
        start = self.start()
        levels: list[dict[object, tuple[float, State]]] = [
            {} for _ in range(len(problem.model) + 1)
        ]
        levels[0][0] = (0.0, start)
        for level in range(len(problem.model)):
            wave = levels[level]
            while wave:
                states = self._keep(wave)
                wave = levels[level] = {}
                for state in states:
                    self._expand(state, levels)
            levels[level] = {}
        return self._found()

    def _keep(self, wave: dict[object, tuple[float, State]]) -> list[State]:
        ranked = sorted((v for v in wave.values() if v[0] < self.best_s - 1e-9), key=lambda v: v[0])
        if len(ranked) <= self.width:
            return [state for _, state in ranked]
        kept, spare = (
            [],
            [],
        )  # a state that looks worse may be of a kind of its own: few of each first
        per_kind: dict[object, int] = {}
        for bound, state in ranked:
            kind = (tuple(state.granted), tuple(sorted(p[0] for p in state.places)))
            per_kind[kind] = count = per_kind.get(kind, 0) + 1
            is_kept = len(kept) < self.width and count <= max(2, self.width // 12)
            (kept if is_kept else spare).append((bound, state))
        room = self.width - len(kept)
        self.at_least_s = min([self.at_least_s, *(bound for bound, _ in spare[room:])])
        return [state for _, state in kept + spare[:room]]

    # ------------------------------------------------------------ one state

    def _expand(self, state: State, levels: list[dict[object, tuple[float, State]]]) -> None:
        for choice in self.choices(state):
            # On to the next moment at which something can be decided.
            while self.advance(choice):
                if choice is None or self.needs_decision(choice):
                    self._put(choice, levels)
                    break
            else:
                if (
                    choice.num_granted == len(self.problem.model)
                    and choice.waited_s < self.best_s - 1e-9
                ):
                    self.best_s, self.best = choice.waited_s, choice

    def _put(self, state: State, levels: list[dict[object, tuple[float, State]]]) -> None:
        bound = self._at_least(state)
        if bound >= self.best_s - 1e-9:
            return
        key = self._key(state)
        level = levels[state.num_granted]
        known = level.get(key)
        if known is None or bound < known[0]:
            level[key] = (bound, state)

    def _key(self, state: State) -> object:
        return (
            round(state.now, 6),
            tuple(sorted((round(at, 6), kind, request) for at, kind, _, request in state.heap)),
            tuple(sorted((p[0], p[1]) for p in state.places)),
            tuple(state.targets),
            tuple(tuple(w) for w in state.waiting),
        )

    def outside(self, state: State) -> list[int]:
        """Models that are waited for and have neither a place nor the promise of one."""
        inside = {p[0] for p in state.places if p[1] in (READY, LOADING)} | set(state.targets)
        return [m for m, waiting in enumerate(state.waiting) if waiting and m not in inside]

    def needs_decision(self, state: State) -> bool:
        return any(p[1] == READY for p in state.places) and bool(self.outside(state))

    def choices(self, state: State) -> list[State]:
        """Go on; or end one turn now for one of those who wait; or two."""
        choices = [state]
        outside = self.outside(state)
        outside.sort(key=lambda m: state.waiting[m][0][0])
        if len(outside) > 4:  # the oldest and the most waited for
            most = max(outside, key=lambda m: len(state.waiting[m]))
            outside = list(dict.fromkeys([*outside[:3], most]))
        for place, (_, mode, _, granted) in enumerate(state.places):
            if mode != READY or (not granted and state.places[place][0] in outside):
                continue
            for model in outside:
                choice = state.copy()
                self.give(choice, place, model)
                choices.append(choice)
                if self.problem.room > 1 and len(outside) > 1:
                    choices += self._choices_after(
                        choice, outside[outside.index(model) + 1 :], place
                    )
        return choices

    def _choices_after(self, state: State, outside: list[int], after: int) -> list[State]:
        choices = []
        for place in range(after + 1, len(state.places)):
            if state.places[place][1] == READY and outside:
                choice = state.copy()
                self.give(choice, place, outside[0])
                choices.append(choice)
        return choices

    def give(self, state: State, number: int, model: int) -> None:
        """End a place's turn now; when it is empty, it goes to the model."""
        gone, _, _, granted = state.places[number]
        state.places[number][1] = ENDED
        state.ended = ((gone, state.turn_of[gone], granted), state.ended)
        state.targets.append(model)
        self._turn_over(state)

    def _turn_over(self, state: State) -> None:
        """Places whose turn is over and that are empty go to those promised one."""
        stopping = sum(1 for p in state.places if p[1] == STOPPING)
        for number, place in enumerate(state.places):
            if place[1] == ENDED and not place[2] and stopping < len(state.targets):
                place[1] = STOPPING
                stopping += 1
                heapq.heappush(state.heap, (state.now + self.problem.stop_s, GONE, number, -1))

    def _load(self, state: State, number: int, model: int) -> None:
        state.places[number] = [model, LOADING, 0, 0]
        state.turn_of[model] += 1
        state.order = (model, state.order)
        heapq.heappush(state.heap, (state.now + self.problem.load_s, LOADED, number, -1))

    def _grant(self, state: State, number: int, arrived_at: float, request: int) -> None:
        problem, place = self.problem, state.places[number]
        place[2] += 1
        place[3] += 1
        state.waited_s += state.now - arrived_at
        state.granted[place[0]] += 1
        state.num_granted += 1
        heapq.heappush(state.heap, (state.now + problem.service_s[request], END, number, request))

    def advance(self, state: State) -> bool:
        """Handle what is next; False when there is nothing more, or the bound was broken."""
        heap, problem = state.heap, self.problem
        if not heap:
            return False
        now, kind, number, request = heapq.heappop(heap)
        if any(p[1] == ENDED and p[2] for p in state.places):
            state.drained_s += now - state.now
        state.now = now
        if kind == END:
            state.places[number][2] -= 1
            for delay_s, child in problem.then[request]:
                heapq.heappush(heap, (now + delay_s, ARRIVAL, -1, child))
            self._turn_over(state)
        elif kind == ARRIVAL:
            self._arrive(state, request)
        elif kind == GONE:
            self._load(state, number, state.targets.pop(0))
        else:
            place = state.places[number]
            place[1] = READY
            for arrived_at, drained_s, waiting in state.waiting[place[0]]:
                if now - arrived_at - (state.drained_s - drained_s) > problem.limit_s:
                    return False
                self._grant(state, number, arrived_at, waiting)
            state.waiting[place[0]] = []
        return True

    def _arrive(self, state: State, request: int) -> None:
        model = self.problem.model[request]
        for number, place in enumerate(state.places):
            if place[0] == model and place[1] == READY:
                self._grant(state, number, state.now, request)
                return
        state.waiting[model].append((state.now, state.drained_s, request))
        if any(p[0] == model and p[1] == LOADING for p in state.places) or model in state.targets:
            return
        for number, place in enumerate(state.places):
            if place[1] == EMPTY:
                self._load(state, number, model)
                return

    def _at_least(self, state: State) -> float:
        """A lower bound on the total waiting of whatever can follow; infinity if the bound will break."""
        problem, now = self.problem, state.now
        bound = state.waited_s
        coming = {}
        for at, kind, number, _ in state.heap:
            if kind == LOADED:
                coming[state.places[number][0]] = at
        ready = {p[0] for p in state.places if p[1] == READY}
        is_full = all(p[1] != EMPTY for p in state.places)
        swap_s = problem.load_s + (problem.stop_s if is_full else 0.0)
        is_draining = any(p[1] == ENDED and p[2] for p in state.places)
        for model, waiting in enumerate(state.waiting):
            if waiting:
                at = coming.get(
                    model, now + problem.load_s + (0 if model in state.targets else problem.stop_s)
                )
                # What drains now may go on doing so, uncounted, until the load begins.
                soonest = at - problem.load_s if model not in coming else now
                undrained_s = at - max(soonest, now) if is_draining else at - now
                counted_s = now - waiting[0][0] - (state.drained_s - waiting[0][1]) + undrained_s
                if counted_s > problem.limit_s:
                    return math.inf
                bound += sum(at - arrived_at for arrived_at, _, _ in waiting)
            elif (
                state.granted[model] < problem.totals[model]
                and model not in ready
                and model not in coming
            ):
                bound += swap_s
        if problem.work_s is not None and problem.room == 1:
            # Of two clients one ends first; the other waited, or thought, while that one was served.
            left = [work[state.granted[m]] for m, work in enumerate(problem.work_s)]
            for (one_s, one_thinks_s), (two_s, two_thinks_s) in itertools.combinations(left, 2):
                bound += max(0.0, min(one_s - two_thinks_s, two_s - one_thinks_s))
        return bound

    def _found(self) -> Found | None:
        state = self.best
        if state is None:
            return None
        counts = {}
        node: object = state.ended
        while node is not None:
            (model, turn, granted), node = node  # type: ignore[misc]
            counts[model, turn] = granted
        turns, node, seen = [], state.order, [0] * len(self.problem.names)
        order = []
        while node is not None:
            model, node = node  # type: ignore[misc]
            order.append(model)
        for model in reversed(order):
            seen[model] += 1
            turns.append((self.problem.names[model], counts.get((model, seen[model]), 10**9)))
        return Found(self.best_s, turns, min(self.best_s, self.at_least_s))


def search(trace: Trace, longest_wait_s: float, width: int) -> Found | None:
    """The best schedule that a search of that width finds; None if it finds none within the bound."""
    return Search(Problem(trace, longest_wait_s), width).run()
