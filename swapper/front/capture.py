"""The last requests and their answers, kept in memory for whoever looks after this server.

Only where the configuration asks for it: else nothing here runs. It is bounded by number and by bytes,
holds no credentials, is written nowhere, and is gone with the process.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, Protocol

from aiohttp import web

from swapper.front.answer import Answer
from swapper.front.call import Call
from swapper.front.headers import Header
from swapper.front.joined import Joined, joined
from swapper.front.keys import presented
from swapper.front.metrics import Metrics, Told
from swapper.front.redaction import safe_headers, safe_target, without_secrets

Params = ParamSpec("Params")
Serve = Callable[Concatenate[Call, Params], Coroutine[Any, Any, web.StreamResponse]]
Json = dict[str, Any]

LONGEST_BODY: Final = 2 * 1024 * 1024  # kept of one; and never more than a quarter of all
OVERHEAD: Final = 2048  # of one exchange: headers and what holds it together


class Limits(Protocol):
    """How much is kept at most."""

    @property
    def requests(self) -> int: ...

    @property
    def memory(self) -> int:
        """Bytes, of all together."""
        ...


@dataclass(frozen=True, slots=True)
class Body:
    """As much of a body as is kept, without its secrets; `length` is that of the whole, with them."""

    kept: bytes
    length: int
    is_cut: bool
    content_type: str

    def told(self) -> Json:
        """`text` is null for what is no text."""
        try:  # a character may have been cut in two
            text = self.kept.decode("utf-8", "replace" if self.is_cut else "strict")
        except UnicodeDecodeError:
            text = None
        return {"text": text, "bytes": self.length, "is_cut": self.is_cut}


@dataclass(slots=True)
class Tape:
    """Takes an answer down while it is sent."""

    limit: int
    headers: list[Header] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    length: int = 0

    def add(self, piece: bytes) -> None:
        self.length += len(piece)
        if (left := self.limit - len(self.data)) > 0:
            self.data += piece[:left]


class TapedAnswer(Answer):
    """An answer that is taken down."""

    def __init__(
        self,
        tape: Tape,
        request: web.BaseRequest,
        status: int,
        reason: str,
        headers: Iterable[Header],
        first: bytes = b"",
        **framing: bool | int | None,
    ) -> None:
        self._tape = tape
        tape.headers = list(headers)
        super().__init__(request, status, reason, tape.headers, first, **framing)  # type: ignore[arg-type]

    def send(self, data: bytes) -> bool:
        self._tape.add(data)
        return super().send(data)

    def _frame(self, data: bytes) -> bytes:
        self._tape.add(data)
        return super()._frame(data)


@dataclass(slots=True)
class Exchange:
    """One request and its answer. `number` is the request's among all that ended."""

    number: int
    request_id: str
    key: str
    worker: str | None
    engine: str | None
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: Body
    answer_headers: list[tuple[str, str]]
    answer: Body
    _summary: Json | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.body.kept) + len(self.answer.kept) + OVERHEAD

    def summary(self) -> Json:
        """What its answer says of itself; read when somebody first wants to know."""
        if self._summary is None:
            self._summary = _summary(self._joined())
        return self._summary

    def told(self) -> Json:
        """All of it."""
        said = self._joined()
        return {
            "request_id": self.request_id,
            "key": self.key,
            "worker": self.worker,
            "engine": self.engine,
            "request": {
                "method": self.method,
                "target": self.target,
                "headers": self.headers,
                **self.body.told(),
            },
            "response": {
                "headers": self.answer_headers,
                **self.answer.told(),
                "said": {
                    "text": said.text,
                    "reasoning": said.reasoning,
                    "calls": [asdict(call) for call in said.calls.values()],
                },
            },
        }

    def _joined(self) -> Joined:
        return joined(self.answer.content_type, self.answer.kept)


class Capture:
    """Owner of what is kept."""

    def __init__(self) -> None:
        self.limits: Limits | None = None
        self._kept: deque[Exchange] = deque()  # the newest last
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self._size

    def set_limits(self, limits: Limits | None) -> None:
        """Keep so much from now on; None: nothing, and what was kept is forgotten."""
        self.limits = limits
        self._shrink()

    def forget(self) -> None:
        """All that was kept."""
        self._kept.clear()
        self._size = 0

    def over(self, serve: Serve[Params]) -> Serve[Params]:
        """The same, with what is asked and answered kept while there are limits."""

        async def serve_and_keep(
            call: Call, /, *args: Params.args, **kwargs: Params.kwargs
        ) -> web.StreamResponse:
            tape = Tape(self._longest)
            call.new_answer = partial(TapedAnswer, tape)
            response: web.StreamResponse | None = None
            try:
                response = await serve(call, *args, **kwargs)
                return response
            finally:
                if call.number is not None:
                    self._keep(call, call.number, tape, response)

        def serve_or_keep(
            call: Call, /, *args: Params.args, **kwargs: Params.kwargs
        ) -> Coroutine[Any, Any, web.StreamResponse]:
            keeping = serve if self.limits is None else serve_and_keep
            return keeping(call, *args, **kwargs)

        return serve_or_keep

    def exchange(self, number: int) -> Exchange | None:
        """The request of that number, if it was kept."""
        return next((it for it in reversed(self._kept) if it.number == number), None)

    @property
    def oldest(self) -> int | None:
        """The number of the first request that is kept."""
        return self._kept[0].number if self._kept else None

    def summaries(self, since: int = 0) -> dict[int, Json]:
        """Of those that are kept behind number `since`, by number."""
        return {kept.number: kept.summary() for kept in self._kept if kept.number > since}

    # ------------------------------------------------------------ inside

    @property
    def _longest(self) -> int:
        return min(LONGEST_BODY, self.limits.memory // 4) if self.limits is not None else 0

    def _keep(
        self, call: Call, number: int, tape: Tape, response: web.StreamResponse | None
    ) -> None:
        if self.limits is None:  # it was switched off meanwhile
            return
        if isinstance(response, web.Response) and isinstance(response.body, bytes):  # a refusal
            tape.headers = [
                (name.encode(), value.encode()) for name, value in response.headers.items()
            ]
            tape.add(response.body)
        exchange = self._exchange(call, number, tape)
        self._kept.append(exchange)
        self._size += exchange.size
        self._shrink()

    def _exchange(self, call: Call, number: int, tape: Tape) -> Exchange:
        request, lease, key = call.request, call.lease, presented(call.request)
        answer_headers = safe_headers(tape.headers)
        names = dict(answer_headers)
        given = without_secrets(call.given, key)
        plain = _plain(bytes(tape.data), names.get("content-encoding", ""), self._longest)
        is_cut = tape.length > len(tape.data) or len(plain) == self._longest
        return Exchange(
            number=number,
            request_id=call.request_id,
            key=call.key_name,
            worker=None if lease is None else lease.worker_id,
            engine=None if lease is None else lease.engine,
            method=request.method,
            target=safe_target(request.raw_path),
            headers=safe_headers(request.raw_headers),
            body=Body(
                given[: self._longest],
                len(call.given),
                len(given) > self._longest,
                request.content_type,
            ),
            answer_headers=answer_headers,
            answer=Body(
                without_secrets(plain, key), tape.length, is_cut, names.get("content-type", "")
            ),
        )

    def _shrink(self) -> None:
        if self.limits is None:
            self.forget()
            return
        while self._kept and (
            len(self._kept) > self.limits.requests or self._size > self.limits.memory
        ):
            self._size -= self._kept.popleft().size


def _plain(data: bytes, encoding: str, limit: int) -> bytes:
    """What a server has compressed, unpacked as far as `limit`: secrets are looked for in that."""
    if encoding not in ("gzip", "deflate"):
        return data
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(data, limit)
    except zlib.error:
        return data


def listed(metrics: Metrics, summaries: Mapping[int, Json], since: int = 0) -> list[Json]:
    """The last requests behind number `since`, the newest last; those that were kept with what their
    answers say of themselves."""
    return [
        {
            "number": number,
            **asdict(told),
            "dialect": dialect_of(told),
            "is_kept": number in summaries,
            **summaries.get(number, NOTHING),
        }
        for number, told in metrics.told(since)
    ]


def _summary(said: Joined) -> Json:
    return {
        "prompt_tokens": said.prompt_tokens,
        "answer_tokens": said.answer_tokens,
        "finish": said.finish,
    }


NOTHING: Final = _summary(Joined())


def dialect_of(told: Told) -> str:
    """Whose words a request was asked in."""
    if told.route.startswith("/api/"):
        return "ollama"
    known = {"/v1/messages": "anthropic", "/v1/responses": "responses", "/upstream/": "upstream"}
    return next((name for path, name in known.items() if told.route.startswith(path)), "openai")
