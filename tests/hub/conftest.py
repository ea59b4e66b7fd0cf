"""A server that speaks the hub's protocol, and `swapper pull` as a process that talks to it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

COMMIT = "c" * 40


class Hub:
    """Repositories by name, each with its files; what was asked, and what is to go wrong."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.claims: dict[str, dict[str, object]] = {}  # what the listing says wrongly of a file
        self.refused: dict[str, tuple[int, str]] = {}  # by repository: status and error code
        self.ranges: list[tuple[str, str | None]] = []  # of every GET of a file
        self.tokens: set[str | None] = set()
        self.breaks: list[int] = []  # after so many bytes the next connections end
        self.stalls_after: int | None = None  # or they hang, until let go
        self.stalled = threading.Event()
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/models/{org}/{name}", self._list)
        app.router.add_get("/api/models/{org}/{name}/revision/{revision}", self._list)
        app.router.add_get("/{org}/{name}/resolve/{revision}/{file:.+}", self._file)
        return app

    def _refusal(self, name: str) -> web.Response | None:
        if name in self.refused:
            status, code = self.refused[name]
            return web.Response(status=status, headers={"x-error-code": code} if code else {})
        if name not in self.repositories:
            return web.Response(status=404, headers={"x-error-code": "RepoNotFound"})
        return None

    async def _list(self, request: web.Request) -> web.Response:
        name = "{org}/{name}".format(**request.match_info)
        self.tokens.add(request.headers.get("authorization"))
        if (refusal := self._refusal(name)) is not None:
            return refusal
        if request.match_info.get("revision", "main") not in ("main", COMMIT):
            return web.Response(status=404, headers={"x-error-code": "RevisionNotFound"})
        files = [self._sibling(path, data) for path, data in self.repositories[name].items()]
        return web.json_response({"id": name, "sha": COMMIT, "siblings": files})

    def _sibling(self, path: str, content: bytes) -> dict[str, object]:
        size = len(content)
        entry: dict[str, object] = {"rfilename": path, "size": size}
        if path.endswith((".gguf", ".safetensors")):
            lfs = {"size": size, "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 1}
            entry["lfs"] = {**lfs, **self.claims.get(path, {})}
        else:
            entry["blobId"] = hashlib.sha1(b"blob %d\0" % size + content).hexdigest()
        return {**entry, **self.claims.get(path, {})}

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = "{org}/{name}".format(**request.match_info)
        path = request.match_info["file"]
        assert request.match_info["revision"] == COMMIT
        content = self.repositories[name][path]
        asked = request.headers.get("range")
        self.ranges.append((path, asked))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        headers = {"x-repo-commit": COMMIT, "etag": '"x"', "accept-ranges": "bytes"}
        if start:
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        response.content_length = len(content) - start
        await response.prepare(request)
        if self.breaks:
            await response.write(content[start : start + self.breaks.pop(0)])
            assert request.transport is not None
            request.transport.abort()
            return response
        if self.stalls_after is not None:
            await response.write(content[start : start + self.stalls_after])
            self.stalled.set()
            await asyncio.sleep(60)
        await response.write(content[start:])
        await response.write_eof()
        return response


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The server, on a thread of its own."""
    hub, loop, ready = Hub(), asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(hub.app(), handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        hub.url = str(runner.addresses[0][1])
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    hub.url = f"http://127.0.0.1:{hub.url}"
    yield hub
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture
def start_pull(hub: Hub, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`swapper pull` as it is, in the test's folder."""

    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environ: str) -> subprocess.Popen[str]:
        given = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "XDG_DATA_HOME": str(tmp_path / "data"),
            **environ,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "swapper", "pull", *arguments],
            cwd=tmp_path, env={**os.environ, **given}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # In the background of a script the signal is ignored, and so it would be here.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def pull(start_pull: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str, str]]:
    """Runs it to its end: exit status, output, errors."""

    def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
        process = start_pull(*arguments, **environ)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    return run
