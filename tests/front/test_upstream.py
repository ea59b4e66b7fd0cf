"""The upstream half by itself: addresses, the pool, what is sent."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp.http_parser
import pytest

from swapper.front import upstream as module
from swapper.front.connection import Connection, NeverConnected
from swapper.front.response import Response
from swapper.front.upstream import Upstream, host_header, serialise
from swapper.runtime.endpoint import Endpoint
from tests.front.fakes import PATIENCE_S, Peer, RawWorker, Script, answering, http, mirror


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
async def folder() -> AsyncIterator[str]:
    path = tempfile.mkdtemp()
    yield path
    shutil.rmtree(path)


async def begin(folder: str, script: Script = mirror) -> RawWorker:
    worker = RawWorker(f"{folder}/worker.sock", script)
    await worker.start()
    return worker


async def whole(response: Response) -> bytes:
    body = response.take()
    while not response.is_complete:
        await response.wait()
        body += response.take()
    return body


def test_the_parser_is_the_compiled_one() -> None:
    assert aiohttp.http_parser.HttpResponseParser.__module__ == "aiohttp._http_parser"


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (Endpoint(socket_path="/x"), "localhost"),
        (Endpoint(host="box", port=80), "box"),
        (Endpoint(host="box", port=443), "box:443"),
        (Endpoint(host="box", port=443, tls=True), "box"),
        (Endpoint(host="::1", port=8080), "[::1]:8080"),
    ],
)
def test_host_header(endpoint: Endpoint, expected: str) -> None:
    assert host_header(endpoint) == expected


def test_bytes_of_a_request() -> None:
    endpoint = Endpoint(socket_path="/x", prefix="/p")
    sent = serialise(endpoint, "POST", "/a?b=c", [(b"x", b"\xff")], 0)
    assert (
        sent == b"POST /p/a?b=c HTTP/1.1\r\nhost: localhost\r\nx: \xff\r\ncontent-length: 0\r\n\r\n"
    )
    assert b"content-length" not in serialise(endpoint, "GET", "/", [], 0)


async def test_answers_over_one_kept_connection(upstream: Upstream, folder: str) -> None:
    worker = await begin(folder)
    for _ in range(3):
        response = await upstream.open(worker.endpoint, "GET", "/", [], b"")
        assert response.status == 200
        assert b'"target": "/"' in await whole(response)
    assert worker.num_connections == 1
    await worker.stop()


async def test_answers_side_by_side_have_their_own_connections(
    upstream: Upstream, folder: str
) -> None:
    worker = await begin(folder)
    both = await asyncio.gather(
        *(upstream.open(worker.endpoint, "GET", f"/{i}", [], b"") for i in range(2))
    )
    assert [b'"/%d"' % i in await whole(response) for i, response in enumerate(both)] == [True] * 2
    assert worker.num_connections == 2
    await worker.stop()


async def test_old_idle_connections_are_not_used_again(
    upstream: Upstream, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await begin(folder)
    monkeypatch.setattr(module, "IDLE_S", 0.0)
    for _ in range(2):
        await whole(await upstream.open(worker.endpoint, "GET", "/", [], b""))
    assert worker.num_connections == 2
    await worker.stop()


async def test_no_more_are_kept_than_allowed(
    upstream: Upstream, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await begin(folder)
    monkeypatch.setattr(module, "MAX_IDLE", 1)
    opened = [upstream.open(worker.endpoint, "GET", "/", [], b"") for _ in range(3)]
    for response in await asyncio.gather(*opened):
        await whole(response)
    for response in await asyncio.gather(
        *(upstream.open(worker.endpoint, "GET", "/", [], b"") for _ in range(2))
    ):
        await whole(response)
    assert worker.num_connections == 4
    await worker.stop()


async def test_closing_an_answer_closes_its_connection(upstream: Upstream, folder: str) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
        await peer.gone()
        gone.set()

    worker = await begin(folder, script)
    response = await upstream.open(worker.endpoint, "GET", "/", [], b"")
    response.close()
    async with asyncio.timeout(PATIENCE_S):
        await gone.wait()
    await worker.stop()


async def test_closing_a_complete_answer_leaves_the_next_one_alone(
    upstream: Upstream, folder: str
) -> None:
    worker = await begin(folder)
    first = await upstream.open(worker.endpoint, "GET", "/1", [], b"")
    await whole(first)
    second = await upstream.open(worker.endpoint, "GET", "/2", [], b"")
    first.close()
    assert b"/2" in await whole(second)
    assert worker.num_connections == 1
    await worker.stop()


async def test_cancelled_request_does_not_spoil_the_pool(upstream: Upstream, folder: str) -> None:
    """Cancelled in the very step in which its answer came, and at every other moment."""
    worker = await begin(folder)
    await whole(await upstream.open(worker.endpoint, "GET", "/", [], b""))
    for steps in range(12):
        task = asyncio.create_task(upstream.open(worker.endpoint, "GET", "/lost", [], b""))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        response = await upstream.open(worker.endpoint, "GET", "/kept", [], b"")
        assert b"/kept" in await whole(response)
    await worker.stop()


class StubTransport(asyncio.Transport):
    """Takes everything, sends nothing."""

    is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


async def test_cancelling_does_not_break_the_next_request_on_the_connection(
    upstream: Upstream,
) -> None:
    """The answer comes, the connection goes to the next request, then the first one is cancelled:
    all within one step of the loop."""
    transport = StubTransport()
    connection = Connection(asyncio.get_running_loop(), upstream, ("x", None, 0, False))
    connection.connection_made(transport)
    first = connection.exchange(b"", b"", has_body=True)
    first.send(None)
    connection.data_received(http(b"first"))
    second = connection.exchange(b"", b"", has_body=True)
    second.send(None)
    with pytest.raises(asyncio.CancelledError):
        first.throw(asyncio.CancelledError())
    assert not transport.is_aborted
    connection.data_received(http(b"second"))
    with pytest.raises(StopIteration) as stop:
        second.send(None)
    assert stop.value.value.take() == b"second"


async def test_nobody_there(upstream: Upstream, folder: str) -> None:
    for endpoint in (
        Endpoint(socket_path=f"{folder}/nobody"),
        Endpoint(host="127.0.0.1", port=1),
        Endpoint(host="no-such-host.invalid", port=80),
    ):
        with pytest.raises(NeverConnected):
            await upstream.open(endpoint, "GET", "/", [], b"")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
async def test_tls(upstream: Upstream, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = f"{folder}/key.pem", f"{folder}/cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
    await asyncio.to_thread(
        subprocess.run,
        [*command, "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    worker = RawWorker(str(Path(folder, "unused")), answering(http(b"secret")))
    server = await asyncio.start_server(worker._connected, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    endpoint = Endpoint(host="localhost", port=port, tls=True)
    with pytest.raises(NeverConnected):  # nobody vouches for it
        await upstream.open(endpoint, "GET", "/", [], b"")
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    trusting = Upstream()
    for _ in range(2):
        assert await whole(await trusting.open(endpoint, "GET", "/", [], b"")) == b"secret"
    trusting.close()
    server.close()
    await worker.stop()
