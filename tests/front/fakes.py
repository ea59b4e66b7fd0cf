"""A dispatcher that does as it is told, workers made of raw sockets, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from swapper.core.registry import ModelSpec, Registry
from swapper.core.worker import WorkerState
from swapper.errors import Unavailable
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.log_ring import LogRing
from swapper.runtime.placement import LaunchSpec, WorkerFacts
from swapper.runtime.views import Snapshot, WorkerView

PATIENCE_S = 30.0  # for what must happen; the machine may be busy


@dataclass
class FakeLease:
    worker_id: str
    model: str
    engine: str
    endpoint: Endpoint
    arrived_at: float
    queue_s: float = 0.25
    swap_s: float = 0.0
    load_s: float = 0.125
    is_lost: bool = False

    async def lost(self, timeout_s: float = 1.0) -> bool:
        return self.is_lost


class FakeDispatcher:
    """Leases `endpoints` in turn (the last one for ever), records who came and who left.

    While `gate` is not set requests wait. `refusal` is raised instead of a lease.
    """

    def __init__(self, *specs: ModelSpec, endpoints: list[Endpoint] | None = None) -> None:
        self.registry = Registry({spec.name: spec for spec in specs}, budgets={})
        self.endpoints = endpoints or []
        self.gate = asyncio.Event()
        self.gate.set()
        self.refusal: Unavailable | None = None
        self.is_lost = False
        self.arrivals: list[float | None] = []
        self.keys: list[tuple[str, int]] = []
        self.waiting = 0
        self.held = 0
        self.news = asyncio.Condition()
        self.logs = LogRing()
        self.known: dict[str, WorkerFacts] = {}
        self.view = Snapshot((), {})
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.can_unload = True
        self.stays: list[tuple[str, float]] = []
        self.pins: list[tuple[str, bool]] = []
        self.state_after_sleep: WorkerState | None = WorkerState.SLEEPING
        self.decided = {("tiny", "start", ""): 2, ("org/model:7b", "stop", "room"): 1}
        self.measured: dict[str, Endpoint] = {}  # workers whose metrics are asked for

    @contextlib.asynccontextmanager
    async def lease(
        self, model: str, *, arrived_at: float | None = None, priority: int = 0, key: str = ""
    ) -> AsyncIterator[FakeLease]:
        self.arrivals.append(arrived_at)
        self.keys.append((key, priority))
        await self._count(waiting=+1)
        try:
            await self.gate.wait()
            if self.refusal is not None:
                raise self.refusal
        finally:
            await self._count(waiting=-1)
        number = len(self.arrivals)
        endpoint = self.endpoints[min(number, len(self.endpoints)) - 1]
        await self._count(held=+1)
        try:
            yield FakeLease(f"{model}#{number}", model, "echo", endpoint, 7.0, is_lost=self.is_lost)
        finally:
            await self._count(held=-1)

    async def _count(self, waiting: int = 0, held: int = 0) -> None:
        self.waiting += waiting
        self.held += held
        asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def until(self, *, waiting: int | None = None, held: int | None = None) -> None:
        """Return once so many requests wait, or hold a lease."""
        async with asyncio.timeout(PATIENCE_S), self.news:
            await self.news.wait_for(
                lambda: waiting in (None, self.waiting) and held in (None, self.held)
            )

    def launch(self, model: str) -> LaunchSpec:
        return LaunchSpec(model, self.registry.models[model].engine)

    def is_loaded(self, model: str) -> bool:
        return self.can_unload

    def snapshot(self) -> Snapshot:
        return self.view

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    async def changed(self, timeout_s: float) -> bool:
        async with self.news:
            await self.news.wait()
        return True

    def own_endpoints(self) -> dict[str, Endpoint]:
        return self.measured

    def load(self, model: str) -> None:
        self.loads.append(model)

    async def unload(self, model: str, timeout_s: float) -> bool:
        self.unloads.append(model)
        return self.can_unload

    async def sleep(self, model: str, timeout_s: float) -> WorkerState | None:
        return self.state_after_sleep

    def pin(self, model: str, is_pinned: bool) -> None:
        self.pins.append((model, is_pinned))

    def keep(self, model: str, stays_s: float) -> None:
        self.stays.append((model, stays_s))

    def facts(self, model: str) -> WorkerFacts | None:
        return self.known.get(model)


def view(model: str, state: str = "ready", **changes: object) -> WorkerView:
    """A worker as an operator sees it."""
    values: dict[str, object] = {
        "model": model,
        "engine": "echo",
        "worker_id": f"{model}#1",
        "state": state,
        "pid": 4242,
        "in_flight": 1,
        "progress": 1.0,
        "reserved": {"host": 100},
        "measured": {"host": 90},
        "idle_s": None,
        "expires_in_s": None,
        "ttl_s": 600.0,
    }
    return WorkerView(**{**values, **changes})  # type: ignore[arg-type]


# ---------------------------------------------------------------- workers


@dataclass
class Seen:
    """A request as a worker received it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Script = Callable[["Peer"], Awaitable[None]]


@dataclass
class Peer:
    """One connection as a scripted worker holds it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    worker: RawWorker

    async def request(self) -> Seen:
        """Read one request; raises IncompleteReadError when the client is gone."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(method, target, headers, body)
        self.worker.seen.append(seen)
        return seen

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection, as a killed process does."""
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Return once the other side has closed."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.reader.read(65536):
                pass


@dataclass
class RawWorker:
    """A worker on a Unix socket whose every connection plays a script."""

    path: str
    script: Script
    seen: list[Seen] = field(default_factory=list)
    num_connections: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(socket_path=self.path)

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(Peer(reader, writer, self))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


def http(
    body: bytes, status: str = "200 OK", content_type: str = "application/json", extra: str = ""
) -> bytes:
    """A whole answer with a length."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{extra}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENTS_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def answering(answer: bytes) -> Script:
    """Answer every request with the same bytes, the connection kept."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return script


def streaming(*pieces: bytes) -> Script:
    """Answer one request with an event stream."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EVENTS_HEAD, *(chunk(piece) for piece in pieces), LAST_CHUNK)
        await peer.gone()

    return script


async def mirror(peer: Peer) -> None:
    """Answer every request with what was received."""
    while True:
        seen = await peer.request()
        text = {"method": seen.method, "target": seen.target, "headers": seen.headers}
        body = json.dumps({**text, "body": seen.body.decode("utf-8", "replace")}).encode()
        await peer.send(http(b"" if seen.method == "HEAD" else body))


# ---------------------------------------------------------------- client


@dataclass
class Got:
    """An answer as a client received it. `is_whole`: it ended as its framing promised."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def error(self) -> dict[str, object]:
        return self.json["error"]  # type: ignore[return-value]


class Client:
    """One HTTP/1.1 connection, read byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Got:
        await self.begin(method, target, body, headers)
        return await self.answer(has_body=method != "HEAD")

    async def begin(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        given = {"host": "x", "content-length": str(len(body)), **(headers or {})}
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items())]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), headers

    async def answer(self, *, has_body: bool = True) -> Got:
        status, headers = await self.head()
        if not has_body or status in (204, 304):
            return Got(status, headers, b"", True)
        pieces: list[bytes] = []
        try:
            async for piece in self.pieces(headers):
                pieces.append(piece)  # noqa: PERF401  # what came before a break counts
        except (asyncio.IncompleteReadError, ConnectionError):
            return Got(status, headers, b"".join(pieces), False)
        return Got(status, headers, b"".join(pieces), True)

    async def pieces(self, headers: dict[str, str]) -> AsyncIterator[bytes]:
        """The body as it comes; raises when it breaks off."""
        if headers.get("transfer-encoding") != "chunked":
            length = headers.get("content-length")
            async with asyncio.timeout(PATIENCE_S):
                if length is None:
                    yield await self.reader.read()
                else:
                    yield await self.reader.readexactly(int(length))
            return
        while True:
            async with asyncio.timeout(PATIENCE_S):
                size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
                data = (await self.reader.readexactly(size + 2))[:-2]
            if not size:
                return
            yield data

    async def closed(self) -> bool:
        """Wait for the server to close; True if nothing came before."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read() == b""

    def leave(self) -> None:
        self.writer.close()
