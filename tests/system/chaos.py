"""A seeded plan of requests and mischief, the clients that carry it out, and what they may see.

The plan (who asks for what when, which worker is killed when) follows from the seed alone. How it meets
the server's own timing is up to the machine, so the history is kept, to be told when something is wrong.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.system.conftest import Swapper

SERVER = Path(__file__).with_name("command_server.py")
ECHOES = ("steady", "quick", "large", "brittle", "moody")
MODELS = (*ECHOES, "foreign")
QUEUE_TIMEOUT_S = 6.0
LONGEST_ANSWER_S = 2.0
DEADLINE_S = QUEUE_TIMEOUT_S + LONGEST_ANSWER_S + 12.0  # the last for a machine that is busy
TOKENS_PER_S = 200
REQUESTS_PER_S = 12.0
RELOAD_EVERY_S = 6.0

HEALTH: dict[str, Any] = {"tokens_per_s": TOKENS_PER_S}
SLEEPERS = ("steady", "moody", "large")  # sleep instead of stopping
AILMENTS: tuple[dict[str, Any], ...] = (  # options of an echo worker, and settings of its model
    {"options": {"hang_load": True}, "load_timeout": "1500ms"},
    {"options": {"fail_load": "unsupported"}},
    {"options": {"fail_load": "out_of_memory", "load_s": 0.1}},
    {"options": {"fail_load": "exit"}},
    {"options": {"exit_after_tokens": 150, **HEALTH}},
    {"options": {"break_after_tokens": 150, **HEALTH}},
    {"options": {"ignore_term": True, **HEALTH}},
    {"options": {"memory_bytes": 150 << 20, **HEALTH}, "memory": {"host": "20MiB"}},
    {"options": {"load_s": 1.0, "stop_s": 1.0, **HEALTH}},
    {"options": {"can_sleep": True, "fail_sleep": True, **HEALTH}},
    {"options": {"can_sleep": True, "fail_wake": True, "memory_bytes": 20 << 20, **HEALTH}},
    {"options": {"can_sleep": True, "wake_s": 3.0, **HEALTH}, "load_timeout": "1500ms"},
)

WORDS = "the worker that was killed in the middle of its answer says so, or somebody does for it. "
BROKEN_BODIES = (
    b"", b"{", b"[]", b"{}", b'"steady"', b"\xff\xfe\x00", b'{"model": 3}', b'{"model": "quick"}',
    b'{"model": "steady", "messages": "none"}', b"[" * 5000, b'{"model": null, "stream": true}',
)  # fmt: skip


class Violation(Exception):
    """Something that must never be seen."""


def configuration(python: str, ailing: dict[str, dict[str, Any]] | None = None) -> str:
    """Of six models with room for two, those in `ailing` with their ailment. JSON, which is YAML too."""
    models: dict[str, Any] = {
        name: {
            "engine": "echo",
            "ttl": "1s" if name in ("quick", "moody") else 0,
            "options": {**HEALTH, "can_sleep": name in SLEEPERS, "wake_s": 0.05},
            "parallel": 4,
            **(ailing or {}).get(name, {}),
        }
        for name in ECHOES
    }
    # It does not listen to TERM, and has a child that leaves its session.
    script = f"trap '' TERM; exec {python} {SERVER} ${{port}}"
    models["foreign"] = {"engine": "command", "cmd": ["sh", "-c", script], "ttl": "1s"}
    times = {"queue_timeout": f"{QUEUE_TIMEOUT_S:g}s", "load_timeout": "10s", "stop_grace": "300ms"}
    return json.dumps({"max_loaded": 2, "defaults": {**times, "queue_limit": 30}, "models": models})


# ---------------------------------------------------------------- the plan


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `leave_s`: the client goes after so long; `text`: what is to be echoed."""

    at_s: float
    kind: str
    model: str = ""
    text: str = ""
    leave_s: float | None = None
    choice: int = 0


def plan(seed: int, duration_s: float) -> list[Step]:
    """Everything that will be done, in order."""
    dice = random.Random(seed)
    steps = [*_requests(dice, duration_s)]
    for kind, every_s in (("kill", 1.2), ("stall", 4.0), ("unload", 3.0), ("load", 4.0)):
        steps += [
            Step(at_s, kind, dice.choice(MODELS), choice=dice.randrange(1000))
            for at_s in _times(dice, every_s, duration_s)
        ]
    reloads = range(1, int(duration_s / RELOAD_EVERY_S))
    steps += [Step(n * RELOAD_EVERY_S, "reload", choice=dice.randrange(1 << 30)) for n in reloads]
    return sorted(steps, key=lambda step: step.at_s)


def ailments(seed: int) -> dict[str, dict[str, Any]]:
    """Three of the models, and what is wrong with each."""
    dice = random.Random(seed)
    return dict(zip(dice.sample(ECHOES, 3), dice.sample(AILMENTS, 3), strict=True))


def _requests(dice: random.Random, duration_s: float) -> list[Step]:
    kinds = ("chat", "stream", "completion", "embed", "unknown", "broken", "cut")
    weights = (6, 9, 2, 3, 1, 2, 1)
    made = []
    for at_s in _times(dice, 1 / REQUESTS_PER_S, duration_s):
        kind = dice.choices(kinds, weights)[0]
        favourite = MODELS[int(at_s / 2.5) % len(MODELS)]  # changes, so that there is always a swap
        model = favourite if dice.random() < 0.5 else dice.choice(MODELS)
        length = dice.choice((1, 10, 40, 250))
        text = "".join(islice(WORDS * 4, length))
        leave_s = dice.uniform(0.0, 2.0) if dice.random() < 0.2 else None
        made.append(Step(at_s, kind, model, text, leave_s, dice.randrange(1000)))
    return made


def _times(dice: random.Random, every_s: float, duration_s: float) -> list[float]:
    times, at_s = [], 0.0
    while (at_s := at_s + dice.expovariate(1 / every_s)) < duration_s:
        times.append(at_s)
    return times


# ---------------------------------------------------------------- carrying it out


@dataclass(slots=True)
class Chaos:
    """One run against one server. `write` saves a configuration where the server reads it."""

    swapper: Swapper
    session: aiohttp.ClientSession
    write: Callable[[dict[str, dict[str, Any]]], object]
    began: float = field(default_factory=time.monotonic)
    history: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    num_whole: int = 0

    async def run(self, steps: list[Step]) -> None:
        """Every step at its time, and all of them to their end."""
        self.began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for step in steps:
                await asyncio.sleep(self.began + step.at_s - time.monotonic())
                group.create_task(self._do(step))

    async def _do(self, step: Step) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                seen = await self._within(step.leave_s, self._action(step))
        except TimeoutError:
            seen = self._violated(step, "no answer within its deadline")
        except Violation as violation:
            seen = self._violated(step, str(violation))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told
            seen = self._violated(step, repr(error))
        at_s = time.monotonic() - self.began
        self.history.append(f"{step.at_s:7.2f} to {at_s:7.2f}  {step.kind} {step.model}: {seen}")

    def _violated(self, step: Step, words: str) -> str:
        self.violations.append(f"{step.kind} of {step.model} at {step.at_s:.2f} s: {words}")
        return f"VIOLATION: {words}"

    async def _within(self, leave_s: float | None, doing: Coroutine[Any, Any, str]) -> str:
        """Leave early, as clients do."""
        if leave_s is None:
            return await doing
        task = asyncio.create_task(doing)
        done, _ = await asyncio.wait([task], timeout=leave_s)
        if done:
            return task.result()
        task.cancel()
        await asyncio.wait([task])
        return f"left after {leave_s:.2f} s"

    def _action(self, step: Step) -> Coroutine[Any, Any, str]:
        action: Coroutine[Any, Any, str] = getattr(self, f"_{step.kind}")(step)
        return action

    # ------------------------------------------------------------ requests

    async def _chat(self, step: Step) -> str:
        messages = [{"role": "user", "content": step.text}]
        body = {"model": step.model, "messages": messages}
        status, answer = await self._post("/v1/chat/completions", body)
        if status == 200:
            self._expect(answer, step, lambda: answer["choices"][0]["message"]["content"])
        return self._known(status, answer)

    async def _embed(self, step: Step) -> str:
        status, answer = await self._post("/v1/embeddings", {"model": step.model, "input": "x"})
        if status == 200:
            self._expect(answer, step, lambda: len(answer["data"][0]["embedding"]), wanted=16)
        return self._known(status, answer)

    async def _unknown(self, step: Step) -> str:
        body = {"model": step.model[::-1], "messages": []}
        status, answer = await self._post("/v1/chat/completions", body)
        return self._known(status, answer, allowed=(404,))

    async def _broken(self, step: Step) -> str:
        data = BROKEN_BODIES[step.choice % len(BROKEN_BODIES)]
        status, answer = await self._post("/v1/chat/completions", data=data)
        seen = self._known(status, answer, allowed=(400, 404, 422, 429, 502, 503))
        return f"{data[:40]!r} {seen}"

    async def _cut(self, step: Step) -> str:
        """A client that goes in the middle of its own body."""
        host, _, port = self.swapper.url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n"
        writer.write(f'{head}{{"model": "{step.model}"'.encode())
        await writer.drain()
        await asyncio.sleep((step.leave_s or 0.0) / 4)
        writer.close()
        return "left"

    async def _stream(self, step: Step) -> str:
        if step.model == "foreign":  # does not stream
            return await self._chat(step)
        body = {"messages": [{"role": "user", "content": step.text}]}
        return await self._events("/v1/chat/completions", step, body)

    async def _completion(self, step: Step) -> str:
        if step.model == "foreign":
            return await self._chat(step)
        return await self._events("/v1/completions", step, {"prompt": step.text, "max_tokens": 500})

    async def _events(self, path: str, step: Step, body: dict[str, Any]) -> str:
        body = {"model": step.model, "stream": True, **body}
        async with self.session.post(self.swapper.url + path, json=body) as response:
            if response.status != 200:
                return self._known(response.status, await response.json(), response.headers)
            seen = await Stream.read(response)
        seen.judge(step.text)
        self.num_whole += seen.is_done
        return str(seen)

    async def _post(self, path: str, body: object = None, data: bytes | None = None) -> Any:
        """Status and JSON. What is not whole is no answer."""
        headers = {"content-type": "application/json"}
        content = json.dumps(body).encode() if data is None else data
        url = self.swapper.url + path
        async with self.session.post(url, data=content, headers=headers) as response:
            try:
                answer = await response.json()
            except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
                return 0, {}  # an answer that began and broke
            except ValueError:
                raise Violation(f"{response.status} with what is no JSON") from None
            if response.status in (429, 503) and "retry-after" not in response.headers:
                raise Violation(f"{response.status} without Retry-After")
            return response.status, answer

    def _expect(
        self, answer: Any, step: Step, found: Callable[[], object], wanted: object = None
    ) -> None:
        """A 200 is the right answer, or none."""
        is_right = (
            answer.get("model") == "foreign"
            if step.model == "foreign"
            else found() == (step.text if wanted is None else wanted)
        )
        if not is_right:
            raise Violation(f"a wrong answer: {answer}")
        self.num_whole += 1

    def _known(
        self,
        status: int,
        answer: Any,
        headers: Any = None,
        allowed: tuple[int, ...] = (0, 200, 429, 500, 502, 503),
    ) -> str:
        """A status that may be, with an error that says something."""
        if status not in allowed:
            raise Violation(f"status {status}: {answer}")
        if headers is not None and status in (429, 503) and "retry-after" not in headers:
            raise Violation(f"{status} without Retry-After")
        if status < 400:
            return "broken off" if status == 0 else str(status)
        error = answer["error"]
        if not error["message"] or "Traceback" in error["message"]:
            raise Violation(f"status {status}: {answer}")
        return f"{status} {error.get('code')}: {error['message'][:90]}"

    # ------------------------------------------------------------ mischief

    async def _kill(self, step: Step) -> str:
        """One process of the worker, with -9."""
        family = await self._family(step.model)
        if not family:
            return "nobody there"
        victim = family[step.choice % len(family)]
        return self._send(victim, signal.SIGKILL)

    async def _stall(self, step: Step) -> str:
        """It does nothing any more for a while, and then never again."""
        family = await self._family(step.model)
        if not family:
            return "nobody there"
        stopped = self._send(family[0], signal.SIGSTOP)
        await asyncio.sleep(0.5)
        return f"{stopped}, {self._send(family[0], signal.SIGKILL)}"

    async def _family(self, model: str) -> list[psutil.Process]:
        async with self.session.get(f"{self.swapper.url}/running") as response:
            running = (await response.json())["running"]
        pid = next((entry["pid"] for entry in running if entry["model"] == model), None)
        try:
            first = psutil.Process(pid) if pid else None
            return [first, *first.children(recursive=True)] if first else []
        except psutil.Error:
            return []

    def _send(self, process: psutil.Process, number: signal.Signals) -> str:
        try:
            process.send_signal(number)
        except psutil.Error:
            return "gone before"
        return f"{number.name} to {process.pid}"

    async def _unload(self, step: Step) -> str:
        status, _ = await self._post(f"/swapper/v1/models/{step.model}/unload")
        return str(status)

    async def _load(self, step: Step) -> str:
        status, _ = await self._post(f"/swapper/v1/models/{step.model}/load")
        return str(status)

    async def _reload(self, step: Step) -> str:
        ailing = ailments(step.choice)
        self.write(ailing)
        status, told = await self._post("/swapper/v1/reload")
        if status != 200:
            raise Violation(f"a reload was refused: {told}")
        return str(ailing)


@dataclass(slots=True)
class Stream:
    """An event stream as its client saw it."""

    text: str = ""
    error: str = ""
    is_done: bool = False
    is_broken: bool = False  # the connection ended before the body did
    num_after_end: int = 0

    @classmethod
    async def read(cls, response: aiohttp.ClientResponse) -> Stream:
        seen = cls()
        try:
            async for line in _lines(response):
                seen._take(line)
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionError):
            seen.is_broken = True
        return seen

    def _take(self, line: str) -> None:
        if not line or line.startswith(":"):
            return
        if not line.startswith("data: "):
            raise Violation(f"what is no event: {line!r}")
        self.num_after_end += self.is_done or bool(self.error)
        if line == "data: [DONE]":
            self.is_done = True
            return
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            self.error = event["error"]["message"]
        for choice in event.get("choices", ()):
            self.text += choice.get("text") or choice.get("delta", {}).get("content") or ""

    def judge(self, wanted: str) -> None:
        """Whole, or it says that it is not."""
        if self.num_after_end:
            raise Violation(f"something came after the end: {self}")
        if self.is_done and self.text != wanted:
            raise Violation(f"ended as if it were whole: {self}, wanted {wanted!r}")
        if not (self.is_done or self.error or self.is_broken):
            raise Violation(f"ended without a word: {self}")
        if not wanted.startswith(self.text):
            raise Violation(f"said something else: {self}, wanted {wanted!r}")

    def __str__(self) -> str:
        end = "whole" if self.is_done else f"error: {self.error}" if self.error else "broken off"
        return f"{len(self.text)} letters, {end}"


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in response.content:
        yield line.decode().rstrip("\r\n")
