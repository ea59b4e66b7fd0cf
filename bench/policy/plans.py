"""The best plans known, kept from wide searches so that a comparison need not repeat them.

A plan is evidence, not an opinion: `python -m bench.policy` plays it in the same world as everybody
else, and takes it only if it keeps the bound there. `--search WIDTH` looks for better ones.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.policy.contest import Score, bound_s, replay
from bench.policy.optimum import search
from bench.policy.traces import Request, Trace

PLANS = Path(__file__).with_name("plans.json")
QUICK_WIDTH = {1: 60, 3: 8}  # by room: what a comparison can afford
Key = tuple[str, float, int]  # a trace's name, load and seed


@dataclass(frozen=True)
class Plan:
    """Turns for a trace, and how much better than `waited_s` anything could be within the bound."""

    trace: str
    load_s: float
    seed: int
    fingerprint: int  # of the trace and the bound
    waited_s: float
    at_least_s: float
    width: int
    turns: list[tuple[str, int]]


def fingerprint(trace: Trace) -> int:
    """Changes when the trace or the bound does."""

    def told(request: Request) -> str:
        return f"{request.model} {request.service_s} {[(d, c.model) for d, c in request.then]}"

    roots = [(at, request.model) for at, request in trace.roots]
    lines = [f"{trace.room} {bound_s(trace):.6f} {roots}", *map(told, trace.requests())]
    return zlib.crc32("\n".join(lines).encode())


def load_plans() -> dict[Key, Plan]:
    plans = [Plan(**values) for values in json.loads(PLANS.read_text())] if PLANS.exists() else []
    return {(plan.trace, plan.load_s, plan.seed): plan for plan in plans}


def save_plans(plans: dict[Key, Plan]) -> None:
    lines = [json.dumps(asdict(plan)) for _, plan in sorted(plans.items())]
    PLANS.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def plan_for(trace: Trace, plans: dict[Key, Plan], width: int = 0) -> Plan:
    """The plan kept, or one found now if there is none, or a better one if a search was asked for."""
    key = trace.name, trace.load_s, trace.seed
    known = plans.get(key)
    mark = fingerprint(trace)
    if known is not None and known.fingerprint != mark:
        known = None
    if known is not None and (not width or known.at_least_s >= known.waited_s):
        return known
    width = width or QUICK_WIDTH[trace.room]
    found = search(trace, bound_s(trace), width)
    plan = known
    if found is not None:
        score = replay(trace, found.turns)
        if keeps(score, trace) and (known is None or score.waited_s < known.waited_s - 1e-6):
            plan = Plan(*key, mark, score.waited_s, found.at_least_s, width, found.turns)
    if plan is None:
        raise ValueError(
            f"no plan keeps the bound in {trace.name}, {trace.load_s:g} s, {trace.seed}"
        )
    at_least_s = min(plan.waited_s, max(plan.at_least_s, found.at_least_s if found else 0.0))
    plan = replace(plan, at_least_s=at_least_s)
    plans[key] = plan
    return plan


def keeps(score: Score, trace: Trace) -> bool:
    """Whether nobody waited longer than the bound."""
    return score.counted_s <= bound_s(trace) + 1e-6
