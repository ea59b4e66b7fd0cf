"""One echo worker for all tests of the routes, and clients of it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.echo.worker_process import WorkerProcess


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess({"model": "org/parrot:7b", "context": 500}) as process:
        yield process.ready()


@pytest.fixture
def client(worker: WorkerProcess) -> Iterator[httpx.Client]:
    with worker.client() as client:
        yield client
