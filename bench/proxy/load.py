"""The clients: raw connections that send the same request over and over, and note every answer's time.

Started as `python -m bench.proxy.load requests|streams PORT ...`; prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import cast

import uvloop

from bench.proxy.worker import content_length

MESSAGES = [{"role": "user", "content": "Tell me of the sea. " * 20}]


def request(body: dict[str, object]) -> bytes:
    """A request as SDKs send it, headers and all; its body is about 0.5 KB."""
    data = json.dumps(
        {"model": "bench", "messages": MESSAGES, **body}, separators=(",", ":")
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        "accept: application/json\r\naccept-encoding: gzip, deflate\r\n"
        "content-type: application/json\r\nuser-agent: OpenAI/Python 2.0\r\n"
        "authorization: Bearer none\r\nx-stainless-lang: python\r\n"
        f"x-stainless-async: false\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class Requests(asyncio.Protocol):
    """Sends the next request when the answer to the last one is complete, `count` times."""

    def __init__(self, data: bytes, count: int, done: asyncio.Future[None]) -> None:
        self._data = data
        self._left = count
        self._done = done
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None
        self.times: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("the server closed"))

    def _next(self) -> None:
        assert self._transport is not None
        if not self._left:
            self._done.set_result(None)
            return
        self._left -= 1
        self._sent = time.perf_counter()
        self._transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < content_length(head):
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        self.times.append(time.perf_counter() - self._sent)
        self._buffer = b""
        self._next()


class Stream(asyncio.Protocol):
    """One event stream; notes how long events were on their way."""

    def __init__(self, data: bytes, done: asyncio.Future[None]) -> None:
        self._data = data
        self._done = done
        self.num_events = 0
        self.times: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("the server closed"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.num_events += data.count(b'"sent_ns":')
        _, found, rest = data.rpartition(b'"sent_ns":')
        if found:
            self.times.append((now - int(rest.partition(b"}")[0])) / 1e9)
        if data.endswith(b"0\r\n\r\n"):
            self._done.set_result(None)


async def run_requests(port: int, connections: int, count: int) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    data = request({})
    dones = [loop.create_future() for _ in range(connections)]
    started = time.perf_counter()
    protocols = []
    for done in dones:
        _, protocol = await loop.create_connection(
            lambda done=done: Requests(data, count // connections, done), "127.0.0.1", port
        )
        protocols.append(protocol)
    await asyncio.gather(*dones)
    took = time.perf_counter() - started
    times = [moment for protocol in protocols for moment in protocol.times]
    return {"count": len(times), "took_s": took, "times_ms": percentiles(times)}


async def run_streams(port: int, streams: int, events: int, interval_s: float) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    data = request({"stream": True, "events": events, "interval_s": interval_s})
    dones = [loop.create_future() for _ in range(streams)]
    started = time.perf_counter()
    protocols = []
    for done in dones:
        _, protocol = await loop.create_connection(
            lambda done=done: Stream(data, done), "127.0.0.1", port
        )
        protocols.append(protocol)
        await asyncio.sleep(interval_s / streams)  # spread, as clients are
    await asyncio.gather(*dones)
    took = time.perf_counter() - started
    times = [moment for protocol in protocols for moment in protocol.times]
    count = sum(protocol.num_events for protocol in protocols)
    return {"count": count, "took_s": took, "times_ms": percentiles(times)}


def percentiles(times: list[float]) -> dict[str, float]:
    """In milliseconds."""
    times.sort()
    return {
        f"p{part}": round(times[min(len(times) - 1, len(times) * part // 100)] * 1000, 4)
        for part in (50, 90, 99)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["requests", "streams"])
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--interval-s", type=float, default=0.02)
    args = parser.parse_args()
    if args.kind == "requests":
        result = uvloop.run(run_requests(args.port, args.connections, args.count))
    else:
        result = uvloop.run(run_streams(args.port, args.connections, args.events, args.interval_s))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
