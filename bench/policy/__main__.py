"""Plays every trace with every contestant and prints the table: `python -m bench.policy`.

Writes bench/results/policy.json. README.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from bench.policy.contest import CONTESTANTS, Score, bound_s, replay
from bench.policy.plans import Plan, keeps, load_plans, plan_for, save_plans
from bench.policy.traces import Trace, all_traces

RESULTS = Path(__file__).parents[1] / "results" / "policy.json"
HEAD = """\
| trace | load | optimum | swapper | first come | loaded first | longest wait | loads | lost |
|---|--:|--:|--:|--:|--:|--:|--:|--:|"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument(
        "--search", type=int, default=0, metavar="WIDTH", help="look for better plans"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="traces whose name contains this"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="other traces of the same kinds; not kept"
    )
    options = parser.parse_args()
    began = time.monotonic()
    plans = {} if options.seed else load_plans()
    rows = []
    print(HEAD)
    for trace in all_traces(options.seed):
        if options.only not in trace.name:
            continue
        plan = plan_for(trace, plans, options.search)
        scores = {name: contestant(trace) for name, contestant in CONTESTANTS.items()}
        scores["optimum"] = replay(trace, plan.turns)
        print(line(trace, scores, plan), flush=True)
        rows.append(row(trace, scores, plan))
        if options.search and not options.seed:
            save_plans(plans)
    if not options.only and not options.seed:
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{time.monotonic() - began:.0f} s")


def line(trace: Trace, scores: dict[str, Score], plan: Plan) -> str:
    """A trace's row. A contestant that broke the bound stands in brackets."""
    best_s = scores["optimum"].waited_s

    def ratio(name: str) -> str:
        text = f"{scores[name].waited_s / best_s:.2f}"
        return text if keeps(scores[name], trace) else f"({text})"

    mark = "=" if plan.at_least_s >= plan.waited_s - 1e-6 else "≤"
    cells = [
        trace.name,
        f"{trace.load_s:g} s",
        f"{mark} {best_s:.0f} s",
        *(ratio(name) for name in CONTESTANTS),
        " · ".join(f"{score.longest_s:.0f}" for score in scores.values()),
        " · ".join(f"{score.loads}" for score in scores.values()),
        " · ".join(f"{score.lost:.0%}" for score in scores.values()),
    ]
    return f"| {' | '.join(cells)} |"


def row(trace: Trace, scores: dict[str, Score], plan: Plan) -> dict[str, object]:
    return {
        "trace": trace.name,
        "load_s": trace.load_s,
        "room": trace.room,
        "models": len(trace.models),
        "requests": sum(1 for _ in trace.requests()),
        "bound_s": bound_s(trace),
        "at_least_s": plan.at_least_s,
        "scores": {
            name: {
                **{key: round(value, 4) for key, value in asdict(score).items()},
                "ratio": round(score.waited_s / scores["optimum"].waited_s, 4),
                "keeps_bound": keeps(score, trace),
            }
            for name, score in scores.items()
        },
    }


if __name__ == "__main__":
    main()
