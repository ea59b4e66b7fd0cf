"""Tokens per second of the GGUF engine beside llama.cpp's own server, over HTTP, streaming, greedy.

    python -m bench.gguf.throughput --llama-server PATH [--rounds 7] [--python-server] [--label NAME]

All servers hold the same file with the same threads, and take turns within every round, so that a busy
neighbour meets all of them. Every prompt of every round is new, so nobody answers from a cache. A figure
is the tokens of all answers by the time from the first request to the last byte, prompts included.
README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import string
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.gguf import machine
from bench.gguf.model import make
from bench.gguf.servers import Room, Server, llama_server, neighbour, python_server, worker

CONTEXT = 8192
EOS_BIAS = -100


@dataclass(frozen=True, slots=True)
class Case:
    """So many clients at once, each with a prompt of so many tokens, some of them common to all."""

    name: str
    clients: int
    prompt: int = 64
    answer: int = 64
    common: int = 0


CASES = (
    Case("1 client", 1),
    Case("4 clients", 4),
    Case("8 clients", 8),
    Case("16 clients", 16),
    Case("8 sharing 700", 8, prompt=716, answer=8, common=700),
)
SLOW_CASES = ("8 clients",)  # those in which a server that serves one after another takes part
SLOW_ROUNDS = 3


class Prompts:
    """Texts of an exact number of tokens, never the same twice."""

    def __init__(self, server: Server, session: aiohttp.ClientSession, seed: str) -> None:
        self._server = server
        self._session = session
        self._random = random.Random(seed)

    async def of(self, case: Case) -> list[list[int]]:
        """Token ids for each client."""
        common = await self._tokens(case.common)
        own = [await self._tokens(case.prompt - case.common) for _ in range(case.clients)]
        return [common + tokens for tokens in own]

    async def text(self, tokens: list[int]) -> str:
        body = {"tokens": tokens}
        async with self._session.post(f"{self._server.url}/detokenize", json=body) as answer:
            return str((await answer.json())["content"])

    async def _tokens(self, count: int) -> list[int]:
        words = ("".join(self._random.choices(string.ascii_lowercase, k=5)) for _ in range(count))
        body = {"content": " ".join(words)}
        async with self._session.post(f"{self._server.url}/tokenize", json=body) as answer:
            tokens: list[int] = (await answer.json())["tokens"]
        assert len(tokens) >= count
        return tokens[:count]


async def measure(
    session: aiohttp.ClientSession, server: Server, prompts: Sequence[list[int] | str], case: Case
) -> float:
    """Tokens per second of one round."""
    begun = time.perf_counter()
    asked = (ask(session, server, prompt, case.answer) for prompt in prompts)
    counts = await asyncio.gather(*asked)
    return sum(counts) / (time.perf_counter() - begun)


async def ask(
    session: aiohttp.ClientSession, server: Server, prompt: list[int] | str, count: int
) -> int:
    """Stream one answer; its number of tokens."""
    body: dict[str, object] = {
        "prompt": prompt,
        "max_tokens": count,
        "temperature": 0,
        "stream": True,
    }
    if server.can_ignore_eos:
        body |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
    seen, usage = 0, None
    async with session.post(f"{server.url}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                usage = chunk.get("usage") or usage
                seen += bool(chunk["choices"])
    tokens = int(usage["completion_tokens"]) if usage else min(seen, count)
    assert tokens == count or not server.can_ignore_eos, (
        f"{server.name}: {tokens} of {count} tokens"
    )
    return tokens


async def run_case(
    session: aiohttp.ClientSession, servers: Sequence[Server], case: Case, rounds: int
) -> dict[str, list[float]]:
    """Rates by server, round by round; the order turns from round to round."""
    rates: dict[str, list[float]] = {server.name: [] for server in servers}
    for number in range(rounds):
        prompts = Prompts(servers[0], session, seed=f"{case.name}, {number}")
        turn = number % len(servers)
        for server in (*servers[turn:], *servers[:turn]):
            if not server.can_ignore_eos and not _takes_part(case, number):
                continue
            given: Sequence[list[int] | str] = await prompts.of(case)
            if not server.can_ignore_eos:
                given = [await prompts.text(tokens) for tokens in given if isinstance(tokens, list)]
            rates[server.name].append(await measure(session, server, given, case))
        last = "  ".join(f"{name} {rate[-1]:.1f}" for name, rate in rates.items() if rate)
        print(f"{case.name}, round {number + 1}: {last}", flush=True)
    return {name: rate for name, rate in rates.items() if rate}


def _takes_part(case: Case, number: int) -> bool:
    return case.name in SLOW_CASES and number < SLOW_ROUNDS


def summary(rates: dict[str, list[float]]) -> dict[str, object]:
    """Medians, and the median of each round's ratio to the first server, which is ours."""
    names = list(rates)
    ours = rates[names[0]]
    ratios = {
        name: [mine / theirs for mine, theirs in zip(ours, rates[name], strict=False)]
        for name in names[1:]
    }
    return {
        "tokens_per_s": {name: round(statistics.median(rate), 2) for name, rate in rates.items()},
        "ratio": {name: round(statistics.median(ratio), 3) for name, ratio in ratios.items()},
        "ratio_range": {
            name: [round(min(ratio), 3), round(max(ratio), 3)] for name, ratio in ratios.items()
        },
        "rounds": {name: [round(rate, 2) for rate in rated] for name, rated in rates.items()},
    }


def table(results: dict[str, dict[str, object]]) -> Iterator[str]:
    """Markdown, for README.md."""
    yield "| case | tokens/s | ratio: median (lowest to highest round) |"
    yield "|---|---|---|"
    for name, result in results.items():
        rates = ", ".join(f"{key} {value}" for key, value in result["tokens_per_s"].items())  # type: ignore[attr-defined]
        ranges: dict[str, list[float]] = result["ratio_range"]  # type: ignore[assignment]
        ratios = ", ".join(
            f"{value} ({ranges[key][0]} to {ranges[key][1]}) of {key}"
            for key, value in result["ratio"].items()  # type: ignore[attr-defined]
        )
        yield f"| {name} | {rates} | {ratios} |"


async def warm_up(session: aiohttp.ClientSession, ours: Server, server: Server) -> None:
    """A server's first answers are slower than all others."""
    case, prompts = Case("warm-up", 2, answer=8), Prompts(ours, session, server.name)
    tokens = await prompts.of(case)
    texts = [await prompts.text(ids) for ids in tokens]
    await measure(session, server, tokens if server.can_ignore_eos else texts, case)


async def run(
    servers: Sequence[Server], cases: Sequence[Case], rounds: int
) -> dict[str, dict[str, object]]:
    """All cases, after one warm-up of every server."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for server in servers:
            await warm_up(session, servers[0], server)
        return {
            case.name: summary(await run_case(session, servers, case, rounds)) for case in cases
        }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--llama-server", type=Path, help="llama.cpp's program, built with the same settings"
    )
    parser.add_argument(
        "--split-kv", action="store_true", help="llama-server with a KV pool per slot as well"
    )
    parser.add_argument(
        "--python-server", action="store_true", help="llama-cpp-python's server as well"
    )
    parser.add_argument("--neighbour", action="store_true", help="keep one core busy meanwhile")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", action="append", help="a case's name; may be repeated")
    parser.add_argument(
        "--add", action="store_true", help="keep what the result file has of other cases"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--model", type=Path, help="a GGUF to use instead of the random one")
    parser.add_argument("--vocab-gguf", type=Path, help="copy the tokenizer from this GGUF")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench-gguf")
    parser.add_argument("--label", default="gguf-throughput", help="name of the result file")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    about = machine.describe()
    model = given.model or make(given.folder, vocab=given.vocab_gguf)
    room = Room(model, given.threads, given.parallel, CONTEXT)
    cases = [case for case in CASES if not given.only or case.name in given.only]
    with ExitStack() as stack:
        servers = [stack.enter_context(worker(room))]
        if given.llama_server:
            servers.append(stack.enter_context(llama_server(given.llama_server, room)))
            if given.split_kv:
                servers.append(
                    stack.enter_context(llama_server(given.llama_server, room, unified=False))
                )
        if given.python_server:
            servers.append(stack.enter_context(python_server(room)))
        stack.enter_context(neighbour(given.neighbour))
        results = asyncio.run(run(servers, cases, given.rounds))
    settings = {
        "neighbour": given.neighbour,
        "rounds": given.rounds,
        "threads": room.threads,
        "parallel": room.parallel,
    }
    print("\n".join(table(results)))
    measured = {"date": about["date"], "load_before": about["load_before"]}
    result: dict[str, Any] = {
        "about": about | settings | {"model": model.name, "model_bytes": model.stat().st_size},
        "cases": {case.name: asdict(case) for case in cases},
        "results": {name: result | measured for name, result in results.items()},
    }
    if given.add:
        earlier = machine.saved(given.label)
        for part in ("cases", "results"):
            result[part] = earlier.get(part, {}) | result[part]
    print(f"raw figures: {machine.save(given.label, result)}")


if __name__ == "__main__":
    main()
