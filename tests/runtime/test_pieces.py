"""The small parts by themselves: lines of a pipe, reports, addresses, ports, folders, reasons."""

import asyncio
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from swapper.core.events import Failure
from swapper.runtime import failures, ports
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.line_pipe import LinePipe
from swapper.runtime.placement import WorkerFacts
from swapper.runtime.placement.urls import BadUrl, endpoint_of
from swapper.runtime.private_folder import PrivateFolder
from swapper.runtime.readiness import is_ready, pause_s, until_ready
from swapper.runtime.report import Progress, parse

from .conftest import eventually

# ---------------------------------------------------------------- lines


async def lines_of(*chunks: bytes, line_bytes: int = 100) -> list[str]:
    """What comes out when these chunks are written one after the other."""
    lines: list[str] = []
    read, write = os.pipe()
    pipe = LinePipe(read, lines.append, line_bytes)
    for chunk in chunks:
        os.write(write, chunk)
        await asyncio.sleep(0.01)
    os.close(write)
    pipe.drain()
    return lines


async def test_lines_are_put_together_from_pieces():
    assert await lines_of(b"on", b"e\ntwo\n\n", b"three") == ["one", "two", "three"]


async def test_progress_bars_are_lines():
    assert await lines_of(b"10%\r20%\r\ndone\r\n") == ["10%", "20%", "done"]


async def test_bytes_that_are_not_text_are_replaced():
    assert await lines_of(b"a\xff\xc3\n\xe2\x82\xac\n") == ["a\ufffd\ufffd", "\u20ac"]


async def test_long_lines_are_cut():
    assert await lines_of(b"x" * 250 + b"\ny") == ["x" * 100, "x" * 100, "x" * 50, "y"]


async def test_a_line_without_end_does_not_pile_up():
    lines: list[str] = []
    read, write = os.pipe()
    pipe = LinePipe(read, lines.append, 100)
    os.write(write, b"x" * 150)
    await eventually(lambda: lines)
    assert lines == ["x" * 100]
    pipe.close()
    pipe.close()
    assert lines == ["x" * 100, "x" * 50]
    os.close(write)


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ('{"event": "loading", "progress": 0.4}', Progress(0.4)),
        ('{"event": "loading", "progress": 3}', Progress(1.0)),
        ('{"event": "loading", "progress": NaN}', None),
        ('{"event": "loading"}', None),
        ('{"event": "ready"}', WorkerFacts()),
        (
            '{"event": "ready", "memory": {"host": 5.0}, "context": 8, "capabilities": ["chat"]}',
            WorkerFacts({"host": 5}, 8, ("chat",)),
        ),
        ('{"event": "ready", "memory": 5, "context": -1, "capabilities": "x"}', WorkerFacts()),
        ('{"event": "failed", "kind": "bad_file", "reason": "a\\nb"}', Failure("bad_file", "a b")),
        ('{"event": "failed"}', Failure("crashed", "the worker gave no reason")),
        ('{"event": "of tomorrow"}', None),
        ("[]", None),
        ("not json", None),
    ],
)
def test_reports(line, report):
    assert parse(line) == report


# ---------------------------------------------------------------- reasons


def test_being_killed_for_lack_of_memory_is_not_just_being_killed():
    facts = {"model": "m", "was_ready": True}
    killed = failures.classify(-9, [], oom_killed=True, **facts)
    assert killed.kind == "out_of_memory"
    assert "host" in killed.reason
    assert failures.classify(-9, [], oom_killed=False, **facts).kind == "crashed"
    assert failures.classify(-15, [], oom_killed=True, **facts).kind == "crashed"


def test_an_address_in_use_while_it_served_is_another_matter():
    lines = ["retrying: address already in use"]
    failure = failures.classify(1, lines, model="m", was_ready=True, oom_killed=False)
    assert failure.kind == "crashed"


def test_reasons_do_not_repeat_what_the_worker_wrote():
    lines = ["token=secret", "CUDA out of memory"]
    failure = failures.classify(1, lines, model="m", was_ready=False, oom_killed=False)
    assert "secret" not in failure.reason


# ---------------------------------------------------------------- addresses and ports


def test_addresses():
    assert endpoint_of("http://box") == Endpoint(host="box", port=80)
    assert endpoint_of("https://box/api/") == Endpoint(
        host="box", port=443, tls=True, prefix="/api"
    )
    assert endpoint_of("http://[::1]:9/v1").host == "::1"
    with pytest.raises(BadUrl, match="http://HOST:PORT"):
        endpoint_of("box")


def test_a_free_port_is_free_and_out_of_the_way_of_connections():
    taken = {ports.free_port() for _ in range(5)}
    port = ports.free_port(taken)
    assert port not in taken
    assert port < int(ports.EPHEMERAL_RANGE.read_text().split()[0])
    with socket.create_server(("127.0.0.1", port)):
        assert not ports._can_bind(port)


def test_asking_too_rarely_adds_a_fortieth_to_a_load_at_most():
    assert pause_s(0.0) == pause_s(0.7) == 0.02
    assert pause_s(2.0) == 0.05
    assert pause_s(60.0) == 0.25


async def test_readiness_is_asked_for_until_it_comes():
    statuses = ["503 Loading", "200 OK"]
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {statuses.pop(0)}\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint = Endpoint(host="127.0.0.1", port=port, prefix="/x", headers={"authorization": "k"})
    await asyncio.wait_for(until_ready(endpoint, "/health"), 20)
    assert len(requests) == 2
    assert requests[0].startswith(b"GET /x/health HTTP/1.1\r\n")
    assert b"\r\nauthorization: k\r\n" in requests[0]
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 x\r\n", b"\xff"]
)
async def test_what_is_no_answer_is_not_ready(answer):
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    endpoint = Endpoint(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    assert not await is_ready(endpoint, "/health")
    server.close()
    await server.wait_closed()


# ---------------------------------------------------------------- folders


def test_a_private_folder(run_dir):
    base = run_dir / "new" / "base"
    with PrivateFolder(base) as folder:
        assert stat.S_IMODE(base.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        file = folder.write("options", "{}")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(base.iterdir())


def test_a_path_too_long_for_sockets_is_not_used(tmp_path, run_dir, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(run_dir))
    with PrivateFolder(tmp_path / ("x" * 80)) as folder:
        assert folder.path.parent.parent == run_dir
        assert stat.S_IMODE(folder.path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("trap", ["link", "open to all"])
def test_a_folder_laid_out_by_somebody_is_refused(tmp_path, run_dir, monkeypatch, trap):
    monkeypatch.setattr(tempfile, "tempdir", str(run_dir))
    (run_dir / "real").mkdir(mode=0o700)
    ours = run_dir / f"swapper-{os.geteuid()}"
    if trap == "link":
        ours.symlink_to(run_dir / "real")
    else:
        ours.mkdir()
        ours.chmod(0o777)
    with pytest.raises(PermissionError, match="not a folder of ours"):
        PrivateFolder(tmp_path / ("x" * 80))


def test_only_what_a_proxy_has_left_is_removed(run_dir):
    base = run_dir / "base"
    base.mkdir(mode=0o755)
    for name in ("other", "pulse", "swp-", "swp-abcd1234"):
        (base / name).mkdir(mode=0o700)
    (base / "swp-plain123").write_text("")
    left: list[Path] = []
    PrivateFolder(base, left.append).close()
    assert [path.name for path in left] == ["swp-abcd1234"]
    assert {p.name for p in base.iterdir()} == {"other", "pulse", "swp-", "swp-plain123"}
    assert stat.S_IMODE(base.stat().st_mode) == 0o755
