"""What a rule without foresight could do that knew the statistics of Zipf's traces: a rollout.

    python -m bench.policy.informed [--seeds 0 1 2] [--load 1] [--samples 60]

The player knows how often people come, which models they want and how long answers are; also, which no
rule could, when the answers in flight will end. Whenever something can be decided it draws futures by
these, tries every choice that hindsight has in each of them, going on by a plain rule, and takes the
choice that waits least on the average. It need not keep the bound. That is no proof, but what it misses
of the optimum is, as far as we can tell, the price of not knowing who comes next.

Prints, for each trace, the waiting of swapper and of the player as multiples of the optimum's, and
their loads. A trace takes minutes.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
from collections.abc import Sequence

from bench.policy.contest import CONTESTANTS
from bench.policy.optimum import ARRIVAL, LOADED, LOADING, READY, Problem, Search, State
from bench.policy.plans import load_plans, plan_for
from bench.policy.traces import LOADS_S, MODELS, Trace, people, trace_of

NAME = "zipf, 12 in 3"
Future = list[tuple[float, int, float]]  # who comes: (time, model, seconds of service)


class Informed:
    """Plays one trace. It looks ten loads and 20 s ahead, in `samples` futures."""

    def __init__(self, trace: Trace, samples: int) -> None:
        self.load_s = trace.load_s
        self.horizon_s = 10 * trace.load_s + 20.0
        self.samples = samples
        self.problem = Problem(trace, math.inf)
        self.search = Search(self.problem, width=1)
        self.num_real = len(self.problem.model)
        self.wanted = [1.0 / (1 + MODELS.index(name)) for name in self.problem.names]
        self.dice = random.Random(0)

    def play(self) -> tuple[float, int]:
        """Total waiting, and loads."""
        state = self.search.start()
        while self.search.advance(state):
            while self.search.needs_decision(state):
                choice = self._best(self.search.choices(state))
                if choice is state:
                    break
                state = choice
        return state.waited_s, sum(state.turn_of)

    def _best(self, choices: Sequence[State]) -> State:
        if len(choices) == 1:
            return choices[0]
        futures = [self._draw(choices[0].now) for _ in range(self.samples)]
        return min(choices, key=lambda c: sum(self._waits(c, f, c is choices[0]) for f in futures))

    def _draw(self, now: float) -> Future:
        coming = people(self.dice, self.load_s, now)
        seen = itertools.takewhile(lambda one: one[0] <= now + self.horizon_s, coming)
        names = self.problem.names
        return [(at, names.index(name), took_s) for at, name, took_s in seen if name in names]

    def _waits(self, choice: State, future: Future, is_on: bool) -> float:
        """How long all wait up to the horizon in that future; `is_on`: nothing is changed now."""
        state, end = choice.copy(), choice.now + self.horizon_s
        self._foresee(state, future)
        if not is_on:
            self._go_on(state)
        while state.heap and state.heap[0][0] <= end and self.search.advance(state):
            self._go_on(state)
        left = sum(end - at for waiting in state.waiting for at, _, _ in waiting)
        return state.waited_s + left

    def _foresee(self, state: State, future: Future) -> None:
        """Put the future in the place of what will come."""
        problem, first = self.problem, self.num_real
        del problem.model[first:], problem.service_s[first:], problem.then[first:]
        problem.model += [model for _, model, _ in future]
        problem.service_s += [service_s for _, _, service_s in future]
        problem.then += [[] for _ in future]
        state.heap = [event for event in state.heap if event[1] != ARRIVAL]
        state.heap += [(at, ARRIVAL, -1, first + n) for n, (at, _, _) in enumerate(future)]
        heapq.heapify(state.heap)

    # ------------------------------------------------------------ the plain rule

    def _go_on(self, state: State) -> None:
        """Who waits longest gets the place of the least wanted idle model; where nobody is idle for two
        loads and 4 s, that of the least busy one."""
        while outside := self.search.outside(state):
            model = min(outside, key=lambda m: state.waiting[m][0][0])
            ready = [n for n, place in enumerate(state.places) if place[1] == READY]
            idle = [n for n in ready if not state.places[n][2]]
            if idle:
                number = min(idle, key=lambda n: self.wanted[state.places[n][0]])
                if self._waits_for_less_wanted(state, number, len(state.waiting[model])):
                    return
            elif ready and state.now - state.waiting[model][0][0] > 2 * self.load_s + 4.0:
                number = min(ready, key=lambda n: state.places[n][2])
            else:
                return
            self.search.give(state, number, model)

    def _waits_for_less_wanted(self, state: State, number: int, num_waiting: int) -> bool:
        """Whether one that is wanted less than the idle model is soon there to go instead."""
        value = self.wanted[state.places[number][0]]
        loaded_at = {n: at for at, kind, n, _ in state.heap if kind == LOADED}
        for other, (model, mode, num_in_flight, _) in enumerate(state.places):
            if mode not in (LOADING, READY) or self.wanted[model] >= value:
                continue
            idle_s = loaded_at[other] - state.now + 3.6 if mode == LOADING else 1.5 + num_in_flight
            saved_s = self.load_s * (value - self.wanted[model]) / (value + self.wanted[model])
            if idle_s * num_waiting < saved_s:
                return True
        return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.policy.informed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="which traces")
    parser.add_argument("--samples", type=int, default=60, help="futures for each decision")
    parser.add_argument("--load", type=float, choices=LOADS_S, help="of this load only")
    options = parser.parse_args()
    plans = load_plans()
    for load_s in [options.load] if options.load else LOADS_S:
        for seed in options.seeds:
            trace = trace_of(NAME, load_s, seed)
            plan, own = plan_for(trace, plans), CONTESTANTS["swapper"](trace)
            waited_s, loads = Informed(trace, options.samples).play()
            ratios = f"{own.waited_s / plan.waited_s:.2f} · {waited_s / plan.waited_s:.2f}"
            planned = len(plan.turns)
            print(f"{load_s:g} s, {seed}: {ratios}; {own.loads} · {loads} · {planned}", flush=True)


if __name__ == "__main__":
    main()
