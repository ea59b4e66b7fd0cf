"""Plays every trace with every contestant and prints two tables: `python -m bench.policy`.

The first is of one trace of each kind, the second of several. Writes bench/results/policy.json.
README.md says how to read them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from bench.policy.contest import CONTESTANTS, Score, bound_s, replay
from bench.policy.plans import Key, Plan, keeps, load_plans, plan_for, save_plans
from bench.policy.traces import Trace, all_traces

RESULTS = Path(__file__).parents[1] / "results" / "policy.json"
HEAD = """\
| trace | load | optimum | swapper | first come | loaded first | longest wait | loads | lost |
|---|--:|--:|--:|--:|--:|--:|--:|--:|"""
MANY_HEAD = """\
| {} of each | load | swapper | first come | loaded first | beaten |
|---|--:|--:|--:|--:|--:|"""
WITHIN = 1.3  # of the optimum's waiting: what is wanted
MATTERS = 1.01  # less than a hundredth is no difference


@dataclass(frozen=True)
class Row:
    """What everybody did with one trace."""

    trace: Trace
    plan: Plan
    scores: dict[str, Score]  # by contestant; the optimum is the last

    @property
    def best_s(self) -> float:
        """The least waiting known within the bound, whoever's."""
        return min(score.waited_s for score in self.scores.values() if keeps(score, self.trace))

    def ratio(self, name: str) -> float:
        return self.scores[name].waited_s / self.best_s

    def keeps(self, name: str) -> bool:
        return keeps(self.scores[name], self.trace)

    @property
    def beaten(self) -> float:
        """How much longer swapper waits than the best of the other two within the bound."""
        names = [name for name in CONTESTANTS if name != "swapper" and self.keeps(name)]
        own_s = self.scores["swapper"].waited_s
        return max((own_s / self.scores[name].waited_s for name in names), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument(
        "--search", type=int, default=0, metavar="WIDTH", help="look for better plans"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="traces whose name contains this"
    )
    parser.add_argument("--seeds", type=int, default=5, help="traces of each kind")
    options = parser.parse_args()
    began = time.monotonic()
    plans = load_plans()
    rows = []
    print(HEAD)
    for seed in range(options.seeds):
        for trace in all_traces(seed):
            if options.only in trace.name:
                rows.append(play(trace, plans, options.search))
                if seed == 0:
                    print(line(rows[-1]), flush=True)
                if options.search:
                    save_plans(plans)
    print(f"\n{MANY_HEAD.format(options.seeds)}")
    of_a_kind = groupby(sorted(rows, key=kind), kind)
    print(*(many(list(group)) for _, group in of_a_kind), sep="\n")
    within = sum(row.ratio("swapper") <= WITHIN for row in rows)
    print(f"\nwithin {WITHIN}: {within} of {len(rows)}; {time.monotonic() - began:.0f} s")
    if not options.only:
        RESULTS.write_text(json.dumps([figures(row) for row in rows], indent=1) + "\n")


def play(trace: Trace, plans: dict[Key, Plan], width: int) -> Row:
    plan = plan_for(trace, plans, width)
    scores = {name: contestant(trace) for name, contestant in CONTESTANTS.items()}
    return Row(trace, plan, {**scores, "optimum": replay(trace, plan.turns)})


def kind(row: Row) -> tuple[int, float]:
    """In the order of the first table."""
    names = [trace.name for trace in all_traces()]
    return names.index(row.trace.name), row.trace.load_s


def line(row: Row) -> str:
    """One trace. A contestant that broke the bound stands in brackets."""

    def ratio(name: str) -> str:
        text = f"{row.ratio(name):.2f}"
        return text if row.keeps(name) else f"({text})"

    scores = row.scores.values()
    is_exact = row.plan.at_least_s >= row.plan.waited_s - 1e-6
    cells = [
        row.trace.name,
        f"{row.trace.load_s:g} s",
        f"{'=' if is_exact else '≤'} {row.best_s:.0f} s",
        *(ratio(name) for name in CONTESTANTS),
        " · ".join(f"{score.longest_s:.0f}" for score in scores),
        " · ".join(f"{score.loads}" for score in scores),
        " · ".join(f"{score.lost:.0%}" for score in scores),
    ]
    return f"| {' | '.join(cells)} |"


def many(rows: list[Row]) -> str:
    """Several traces of a kind: medians, the worst in brackets, and how many broke the bound."""

    def ratios(name: str) -> str:
        found = [row.ratio(name) for row in rows]
        broken = sum(not row.keeps(name) for row in rows)
        text = f"{statistics.median(found):.2f} ({max(found):.2f})"
        return f"{text}, {broken} broken" if broken else text

    beaten = [row.beaten for row in rows if row.beaten > MATTERS]
    cells = [
        rows[0].trace.name,
        f"{rows[0].trace.load_s:g} s",
        *(ratios(name) for name in CONTESTANTS),
        f"{len(beaten)}: {max(beaten):.2f}" if beaten else "",
    ]
    return f"| {' | '.join(cells)} |"


def figures(row: Row) -> dict[str, object]:
    return {
        "trace": row.trace.name,
        "load_s": row.trace.load_s,
        "seed": row.trace.seed,
        "room": row.trace.room,
        "models": len(row.trace.models),
        "requests": sum(1 for _ in row.trace.requests()),
        "bound_s": bound_s(row.trace),
        "at_least_s": row.plan.at_least_s,
        "scores": {
            name: {
                **{key: round(value, 4) for key, value in asdict(score).items()},
                "ratio": round(row.ratio(name), 4),
                "keeps_bound": row.keeps(name),
            }
            for name, score in row.scores.items()
        },
    }


if __name__ == "__main__":
    main()
