"""Command lines of others: readiness, the ways they fail, and that nothing of them is left over."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from swapper.runtime.placement import WorkerFacts

from .conftest import HERE, eventually, is_alive, number_in

COMMAND = (sys.executable, str(HERE / "command_worker.py"), "${port}")


async def test_it_is_ready_when_it_answers_200(launch):
    worker = launch("command", cmd=(*COMMAND, "--unhealthy-s", "0.3"))
    assert await worker.ready() == WorkerFacts()
    endpoint = worker.handle.endpoint
    assert endpoint.host == "127.0.0.1"
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    pid = json.loads((await reader.read()).split(b"\r\n\r\n")[1])["pid"]
    writer.close()
    assert worker.handle.pid in [parent.pid for parent in psutil.Process(pid).parents()]
    await worker.stopped()
    assert not is_alive(pid)


async def test_without_a_path_it_is_ready_when_its_port_accepts(launch):
    worker = launch("command", cmd=(*COMMAND, "--unhealthy-s", "1000"), ready=None)
    await worker.ready()
    await worker.stopped()


async def test_a_daemonised_grandchild_is_gone_after_stop(launch, tmp_path):
    worker = launch("command", cmd=(*COMMAND, "--daemon", str(tmp_path / "pid")))
    await worker.ready()
    daemon = number_in(tmp_path / "pid")
    assert is_alive(daemon)
    await worker.stopped()
    assert not is_alive(daemon)


async def test_a_daemonised_grandchild_is_gone_after_a_crash(launch, tmp_path):
    worker = launch("command", cmd=(*COMMAND, "--daemon", str(tmp_path / "pid"), "--exit", "7"))
    failure = await worker.gone()
    assert failure.kind == "crashed"
    assert "status 7 before it was ready" in failure.reason
    assert worker.lines == ["about to give up"]
    assert not is_alive(number_in(tmp_path / "pid"))


async def test_nothing_is_left_when_the_guard_itself_is_killed(launch, tmp_path):
    worker = launch("command", cmd=(*COMMAND, "--daemon", str(tmp_path / "pid")))
    await worker.ready()
    pids = [child.pid for child in psutil.Process(worker.handle.pid).children(recursive=True)]
    assert number_in(tmp_path / "pid") in pids
    os.kill(worker.handle.pid, signal.SIGKILL)
    failure = await worker.gone()
    assert failure.kind == "crashed"
    assert "signal 9 (SIGKILL) while it served" in failure.reason
    await eventually(lambda: not any(map(is_alive, pids)))


async def test_a_command_that_ignores_term_is_killed_after_its_grace(launch, tmp_path):
    worker = launch("command", cmd=(*COMMAND, "--ignore-term", "--daemon", str(tmp_path / "pid")))
    await worker.ready()
    begun = time.monotonic()
    await worker.stopped(0.4)
    assert time.monotonic() - begun >= 0.4
    assert not is_alive(number_in(tmp_path / "pid"))


async def test_a_shorter_grace_shortens_the_wait(launch):
    worker = launch("command", cmd=(*COMMAND, "--ignore-term"))
    await worker.ready()
    worker.handle.stop(1000)
    worker.handle.stop(2000)
    await worker.stopped(0.1)


async def test_the_stop_command_is_run_and_knows_the_process(launch, tmp_path):
    told = tmp_path / "told"
    stop = ("sh", "-c", f"echo ${{pid}} ${{model}} > {told}; kill -KILL ${{pid}}")
    worker = launch("command", cmd=(*COMMAND, "--ignore-term"), stop_cmd=stop)
    await worker.ready()
    [command] = psutil.Process(worker.handle.pid).children()
    await worker.stopped()
    assert told.read_text().split() == [str(command.pid), "model"]


@pytest.mark.parametrize("stop_cmd", [("false",), ("/nonexistent/stop",)])
async def test_a_stop_command_that_fails_is_followed_by_term(launch, stop_cmd):
    worker = launch("command", cmd=COMMAND, stop_cmd=stop_cmd)
    await worker.ready()
    await worker.stopped()


async def test_placeholders_are_filled_in_and_the_environment_is_clean(
    launch, tmp_path, monkeypatch
):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("KEPT", "yes")
    leaked = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    worker = launch(
        "command",
        cmd=(*COMMAND, "--dump", "${model}.json"),
        env={"WHERE": "port ${port} of ${model}"},
        cwd=str(tmp_path),
    )
    await worker.ready()
    os.close(leaked)
    seen = json.loads((tmp_path / "model.json").read_text())
    assert seen["env"]["WHERE"] == f"port {worker.handle.endpoint.port} of model"
    assert seen["env"]["KEPT"] == "yes"
    assert not {"NOTIFY_SOCKET", "LISTEN_FDS", "SWAPPER_REPORT_FD"} & seen["env"].keys()
    assert sorted(seen["fds"]) == ["0", "1", "2", "3"]  # 3: the folder that is being listed
    assert seen["core"] == "0"
    assert seen["oom"] == "500"
    assert seen["cwd"] == str(tmp_path)
    await worker.stopped()


async def test_the_port_is_the_one_its_url_names(launch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}/v1/"
    worker = launch("command", cmd=COMMAND, url=url, api_key="secret", upstream_model="org/m")
    await worker.ready()
    endpoint = worker.handle.endpoint
    assert (endpoint.host, endpoint.port, endpoint.prefix) == ("localhost", port, "")
    assert endpoint.headers == {"authorization": "Bearer secret"}
    assert endpoint.upstream_model == "org/m"
    await worker.stopped()


async def test_a_port_that_somebody_else_has_is_found_out(launch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        worker = launch("command", cmd=("sleep", "1000"), url=url, ready=None)
        failure = await worker.gone()
    assert failure.kind == "port_taken"
    assert f"(process {os.getpid()})" in failure.reason
    assert worker.handle.pid is None


async def test_two_workers_cannot_have_one_port(launch):
    port = 19_377
    first = launch("command", model="one", cmd=COMMAND, url=f"http://127.0.0.1:{port}")
    second = launch("command", model="two", cmd=COMMAND, url=f"http://127.0.0.1:{port}")
    assert "the worker of 'one'" in (await second.gone()).reason
    await first.ready()
    await first.stopped()
    third = launch("command", model="two", cmd=COMMAND, url=f"http://127.0.0.1:{port}")
    await third.ready()
    await third.stopped()


@pytest.mark.parametrize("ready", [None, "/health"])  # found out before it has answered anything
async def test_a_port_of_a_process_older_than_the_worker_is_not_the_workers(launch, ready):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        script = "echo started; sleep 1000"
        worker = launch(
            "command", cmd=("sh", "-c", script), url=f"http://127.0.0.1:{port}", ready=ready
        )
        await eventually(lambda: worker.lines)  # it runs, so the port was free when it started
        other.listen()
        failure = await worker.gone()
    assert failure.kind == "port_taken"


def script(tmp_path: Path, text: str, mode: int = 0o755) -> str:
    path = tmp_path / "script"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("echo 'CUDA error: out of memory' >&2; exit 1", "out_of_memory", "gpu_layers"),
        ("echo 'ggml: failed to allocate CUDA0 buffer'; exit 1", "out_of_memory", "memory"),
        ("echo 'bind: Address already in use'; exit 1", "port_taken", "${port}"),
        ("echo 'out of memory'; exit 0", "crashed", "foreground"),
        ("kill -SEGV $$", "crashed", "signal 11 (SIGSEGV)"),
        ("kill -KILL $$", "crashed", "signal 9 (SIGKILL)"),
        ("exit 3", "crashed", "status 3"),
    ],
)
async def test_failures_are_told_apart(launch, tmp_path, text, kind, words):
    worker = launch("command", cmd=(script(tmp_path, f"#!/bin/sh\n{text}\n"),))
    failure = await worker.gone()
    assert failure.kind == kind
    assert words in failure.reason


async def test_a_command_that_is_not_there(launch):
    failure = await launch("command", cmd=("no-such-program", "x")).gone()
    assert failure.kind == "missing_command"
    assert "'no-such-program' was not found" in failure.reason


async def test_a_command_that_may_not_be_executed(launch, tmp_path):
    failure = await launch("command", cmd=(script(tmp_path, "#!/bin/sh\n", 0o644),)).gone()
    assert failure.kind == "missing_command"
    assert "chmod +x" in failure.reason


async def test_a_command_whose_interpreter_is_not_there(launch, tmp_path):
    failure = await launch("command", cmd=(script(tmp_path, "#!/no/such/interpreter\n"),)).gone()
    assert failure.kind == "missing_command"
    assert "interpreter" in failure.reason


async def test_a_working_folder_that_is_not_there(launch, tmp_path):
    failure = await launch("command", cmd=("true",), cwd=str(tmp_path / "gone")).gone()
    assert failure.kind == "missing_file"
    assert str(tmp_path / "gone") in failure.reason


async def test_what_cannot_be_in_a_command_line(launch):
    failure = await launch("command", cmd=("true", "a\0b")).gone()
    assert failure.kind == "crashed"
    assert "null byte" in failure.reason


async def test_no_command_at_all(launch):
    assert (await launch("command").gone()).kind == "bad_options"


async def test_an_argument_list_too_long_to_start(launch):
    failure = await launch("command", cmd=("true", "x" * 3_000_000)).gone()
    assert failure.kind == "bad_options"
