"""Questions to an OpenAI endpoint, streamed, with the time of every piece of the answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence

import aiohttp

from swapper.measure.summary import Answer, Report, Turn, level_of

ANSWER_TIMEOUT_S = 600.0  # a load included
CONNECT_TIMEOUT_S = 5.0


class Asker:
    """Clients of one endpoint. Use it as an async context manager."""

    def __init__(self, url: str, api_key: str, prompt: str) -> None:
        base = url.rstrip("/").removesuffix("/v1")
        self._url = f"{base if '://' in base else f'http://{base}'}/v1/chat/completions"
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._prompt = prompt
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Asker:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(self, model: str, max_tokens: int, number: int = 0) -> Answer:
        """One answer. Never raises for what the server does: that is an `error`."""
        body = {
            "model": model,
            # Each question begins differently, so that no cache knows its answer.
            "messages": [{"role": "user", "content": f"({number}) {self._prompt}"}],
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        sent = time.perf_counter()
        try:
            return await self._read(body, sent)
        except TimeoutError:
            return Answer(sent, error="no answer in time")
        except (aiohttp.ClientError, ValueError, KeyError, TypeError) as error:
            return Answer(sent, error=str(error) or type(error).__name__)

    async def _read(self, body: dict[str, object], sent: float) -> Answer:
        assert self._session is not None
        pieces: list[float] = []
        num_tokens, is_whole = 0, False
        async with self._session.post(self._url, json=body) as response:
            if response.status != 200:
                return Answer(sent, error=_refusal(response.status, await response.text()))
            async for line in response.content:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    is_whole = True
                    break
                chunk = json.loads(data)
                if "error" in chunk:
                    return Answer(sent, error=_message(chunk))
                if any(_has_text(choice) for choice in chunk.get("choices") or ()):
                    pieces.append(time.perf_counter())
                if chunk.get("usage"):
                    num_tokens = int(chunk["usage"]["completion_tokens"])
        ended = time.perf_counter()
        if not is_whole or not pieces:
            return Answer(sent, error="the answer broke off" if pieces else "the answer is empty")
        return Answer(sent, tuple(pieces), ended, num_tokens or len(pieces))


def _has_text(choice: dict[str, dict[str, object] | None]) -> bool:
    delta = choice.get("delta") or {}
    return bool(delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"))


def _refusal(status: int, text: str) -> str:
    try:
        return f"{status}: {_message(json.loads(text))}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{status}: {text.strip()[:200] or 'nothing more'}"


def _message(envelope: dict[str, object]) -> str:
    error = envelope["error"]
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


async def measure(
    asker: Asker,
    report: Report,
    models: Sequence[str],
    concurrencies: Sequence[int],
    rounds: int,
    say: Callable[[str], None],
) -> None:
    """Fill the report: every model's first answer, its levels, then all models in turns.

    A level asks `rounds` questions for each of its clients. A model that does not answer at all is
    left out of the rest.
    """
    answering = []
    for model in models:
        say(f"{model}: first answer")
        answer = await asker.ask(model, report.max_tokens)
        if answer.error is not None:
            report.errors.append(f"{model}: {answer.error}")
            continue
        answering.append(model)
        report.first_asked.append(Turn(model, answer.first_s))
        for concurrency in concurrencies:
            say(f"{model}: {concurrency} at once")
            answers = await _level(asker, model, concurrency, rounds, report.max_tokens)
            report.levels.append(level_of(model, concurrency, answers))
            failed = {answer.error for answer in answers if answer.error}
            report.errors += [f"{model}, {concurrency} at once: {why}" for why in sorted(failed)]
    if len(answering) > 1:
        say("models in turns")
        for number in range(rounds):
            for model in answering:
                answer = await asker.ask(model, 1, number)
                if answer.error is None:
                    report.turns.append(Turn(model, answer.first_s))
                else:
                    report.errors.append(f"{model}, in its turn: {answer.error}")


async def _level(
    asker: Asker, model: str, concurrency: int, rounds: int, max_tokens: int
) -> list[Answer]:
    """Answers to clients that each ask again as soon as they are answered."""

    async def client(index: int) -> list[Answer]:
        numbers = range(index * rounds, (index + 1) * rounds)
        return [await asker.ask(model, max_tokens, number + 1) for number in numbers]

    of_clients = await asyncio.gather(*map(client, range(concurrency)))
    return [answer for answers in of_clients for answer in answers]
