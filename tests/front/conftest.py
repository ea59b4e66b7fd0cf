"""A front on a free port, over a fake dispatcher and scripted workers."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import uvloop

from swapper.config.listen import Listen
from swapper.core.registry import ModelSpec
from swapper.front.server import Front
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.endpoint import Endpoint
from tests.front.fakes import Client, FakeDispatcher, Got, RawWorker, Script, mirror

MODELS = (
    ModelSpec("tiny", "echo", aliases=("gpt-4o-mini",)),
    ModelSpec("org/model:7b", "llamacpp"),
)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Everything runs on both loops: their transports differ in small ways."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class House:
    """A front with everything around it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.dispatcher = FakeDispatcher(*MODELS)
        self.front: Front | None = None
        self.port = 0
        self.workers: list[RawWorker] = []
        self.clients: list[Client] = []

    async def worker(self, script: Script = mirror) -> RawWorker:
        """A further worker; it serves the next lease and those after it."""
        worker = RawWorker(f"{self.folder}/{len(self.workers)}.sock", script)
        await worker.start()
        self.workers.append(worker)
        self.dispatcher.endpoints.append(worker.endpoint)
        return worker

    def no_worker(self) -> None:
        """The next lease is of a worker that does not listen."""
        self.dispatcher.endpoints.append(Endpoint(socket_path=f"{self.folder}/nobody.sock"))

    async def open(self, **options: Any) -> None:
        self.front = Front(cast(Dispatcher, self.dispatcher), **options)
        (url,) = await self.front.start([Listen("127.0.0.1", 0)])
        self.port = int(url.rsplit(":", 1)[1])

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Got:
        return await (await self.client()).ask(method, target, body, headers)

    async def post(self, target: str, body: bytes, headers: dict[str, str] | None = None) -> Got:
        return await self.ask("POST", target, body, headers)

    async def chat(
        self, body: bytes = b'{"model":"tiny"}', headers: dict[str, str] | None = None
    ) -> Got:
        return await self.post("/v1/chat/completions", body, headers)

    async def close(self) -> None:
        for client in self.clients:
            client.leave()
        if self.front is not None:
            await self.front.close(0)
        for worker in self.workers:
            await worker.stop()
        assert self.dispatcher.held == 0, "a lease was not given back"
        assert self.dispatcher.waiting == 0, "a place in the queue was not given back"


@pytest.fixture
async def bare_house() -> AsyncIterator[House]:
    """Not open yet."""
    folder = tempfile.mkdtemp()
    house = House(folder)
    yield house
    await house.close()
    shutil.rmtree(folder)


@pytest.fixture
async def house(bare_house: House) -> House:
    await bare_house.open()
    return bare_house
