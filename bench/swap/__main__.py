"""Plays the scenarios against the real proxy, prints a table and keeps the figures.

    python -m bench.swap [--rounds 3] [--only NAME]

README.md says how to read them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.proxy.overhead import free_port, machine, running, until_open
from bench.swap import scenarios
from bench.swap.scenarios import ANSWER_S, READY_S, Clients, percentile

RESULTS = Path(__file__).parents[1] / "results"
MAX_WAIT_S = 2.0
LOAD_S = READY_S + 0.15  # what starting Python adds
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. `asked_for` and `llama_swap` are texts to compare with."""

    play: Callable[[Clients], Awaitable[Figures]]
    models: str
    asked_for: str
    llama_swap: str
    max_loaded: int = 1
    stop_s: float = 0.0
    max_wait: str = "auto"


async def ping_pong(run: Clients) -> Figures:
    await scenarios.ping_pong(run, "ab")
    return {}


async def ping_pong_thinking(run: Clients) -> Figures:
    await scenarios.ping_pong(run, "ab", think_s=0.3)
    return {}


async def four_models(run: Clients) -> Figures:
    await scenarios.ping_pong(run, "abcd")
    return {}


async def lone(run: Clients) -> Figures:
    answer = await scenarios.lone(run)
    return {"lone_s": answer.took_s, "busy_p99_s": percentile(run.times("a"), 0.99)}


async def alternating(run: Clients) -> Figures:
    await scenarios.alternating(run)
    return {}


async def slow_stop(run: Clients) -> Figures:
    seen = await scenarios.slow_stop(run)
    return {
        "stop_took_s": seen.stop_took_s,
        "delay_p50_s": seen.delay_s(0.5),
        "delay_p99_s": seen.delay_s(0.99),
        "delay_max_s": seen.delay_s(1.0),
        "before_max_s": max(seen.before),
    }


CASES = {
    "ping-pong": Case(ping_pong, "ab", "3 starts, 6 s", "20 starts, 27.2 s"),
    "ping-pong, 300 ms of thought": Case(
        ping_pong_thinking, "ab", "8 starts, 0 failed", "12 starts, 8 of 20 failed"
    ),
    "four models": Case(four_models, "abcd", "6 starts, 12 s", "40 starts, 54 s"),
    "lone request": Case(lone, "ab", "lone 4.5 s, busy p99 6 s", "lone 15.4 s"),
    f"lone request, max_wait {MAX_WAIT_S:g} s": Case(
        lone, "ab", f"lone {MAX_WAIT_S + LOAD_S + ANSWER_S:g} s", "no such setting",
        max_wait=f"{MAX_WAIT_S:g}s",
    ),
    "alternating, 50 ms apart": Case(
        alternating, "ab", "2 starts, 3.4 s, 0 failed", "2 starts, 3.38 s (limit lifted)"
    ),
    "a stop of 4 s beside": Case(
        slow_stop, "ab", "delay 20 ms", "delay 4.05 s", max_loaded=2, stop_s=4.0
    ),
}  # fmt: skip


@contextlib.contextmanager
def serving(case: Case) -> Iterator[tuple[str, Path]]:
    """A fresh swapper's URL, and the file that its workers count their starts in."""
    with tempfile.TemporaryDirectory() as folder:
        starts, config, port = Path(folder, "starts"), Path(folder, "config.json"), free_port()
        starts.touch()
        text = scenarios.configuration(
            case.models,
            starts,
            max_loaded=case.max_loaded,
            stop_s=case.stop_s,
            max_wait=case.max_wait,
        )
        config.write_text(text)
        argv = [sys.executable, "-m", "swapper", "serve", "--config", str(config)]
        environment = {**os.environ, "XDG_STATE_HOME": folder, "XDG_RUNTIME_DIR": folder}
        with running([*argv, "--listen", f"127.0.0.1:{port}"], environment):
            url = f"http://127.0.0.1:{port}"
            until_open(port)
            urllib.request.urlopen(
                f"{url}/health", timeout=30
            ).close()  # it listens before it serves
            yield url, starts


def play(case: Case) -> Figures:
    """One round of one case."""
    load = os.getloadavg()[0]
    with serving(case) as (url, starts):
        figures = asyncio.run(ask(case, url))
        return {"starts": len(starts.read_text().split()), **figures, "load_before": load}


async def ask(case: Case, url: str) -> Figures:
    """What the clients saw."""
    async with scenarios.clients(url) as run:
        special = await case.play(run)
        times = run.times()
        return {
            "makespan_s": run.makespan_s,
            "requests": len(times),
            "failed": run.num_failed,
            "p50_s": percentile(times, 0.5),
            "p99_s": percentile(times, 0.99),
            "max_s": max(times),
            **special,
        }


def line(name: str, case: Case, rounds: list[Figures]) -> str:
    """Medians over the rounds, and the worst in brackets."""

    def told(key: str, unit: str = " s", digits: int = 2) -> str:
        values = [figures[key] for figures in rounds]
        return f"{statistics.median(values):.{digits}f} ({max(values):.{digits}f}){unit}"

    cells = [name, told("starts", "", 0), told("failed", "", 0), told("makespan_s")]
    cells += [told("p50_s"), told("p99_s"), told("max_s")]
    special = [key for key in rounds[0] if key in ("lone_s", "busy_p99_s", "delay_max_s")]
    cells.append(", ".join(f"{key.removesuffix('_s')} {told(key, ' s', 3)}" for key in special))
    return " | ".join(["", *cells, case.asked_for, case.llama_swap, ""]).strip()


HEAD = [
    "| | starts | failed | makespan | p50 | p99 | longest | special | asked for (at most) | llama-swap |",
    "|---|---|---|---|---|---|---|---|---|---|",
]


def commit() -> str:
    command = ["git", "-C", str(RESULTS), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="the cases whose name begins so")
    args = parser.parse_args()
    chosen = {name: case for name, case in CASES.items() if name.startswith(args.only or "")}
    found: dict[str, list[Figures]] = {name: [] for name in chosen}
    table = list(HEAD)
    for name, case in chosen.items():
        for _ in range(args.rounds):
            found[name].append(play(case))
        table.append(line(name, case, found[name]))
        print(table[-1], flush=True)
    print("\n".join(["", *table]))
    if args.only is None:
        keep(found)


def keep(found: dict[str, list[Figures]]) -> None:
    result = {
        "command": "python -m bench.swap",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "cases": {
            name: {
                "asked_for": CASES[name].asked_for,
                "llama_swap": CASES[name].llama_swap,
                "rounds": [{k: round(v, 4) for k, v in figures.items()} for figures in rounds],
            }
            for name, rounds in found.items()
        },
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "swap.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
