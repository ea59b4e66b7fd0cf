"""Memory of GPUs, from the real server to real workers. The driver is pretended, and read through
NVIDIA's own bindings: two GPUs of 1000 MiB, of which a file tells who holds what."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.runtime.fake_driver import build
from tests.system.conftest import eventually

SERVER = Path(__file__).with_name("gpu_server.py")
BUDGET = 'memory: {gpu: {"cuda:0": 1000MiB, "cuda:1": 600MiB}}\n'
FIRST, SECOND = "GPU-aaaa", "GPU-bbbb"


class Gpus:
    """The two GPUs, as a test wants them to be."""

    def __init__(self, folder: Path) -> None:
        self._held = folder / "held"
        self.hold()
        self.env = {"LD_LIBRARY_PATH": str(build(folder).parent), "FAKE_HELD": str(self._held)}

    def hold(self, *held: tuple[int, int, int]) -> None:
        """From now on each is held so: (GPU, process, MiB). Process 0 is one that is not told of."""
        fresh = self._held.with_suffix(".new")
        fresh.write_text("".join("{} {} {}\n".format(*one) for one in held))
        os.replace(fresh, self._held)


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Gpus(tmp_path)


@pytest.fixture
def serve_on(serve, gpus):
    """Starts a server with models given as name=("what", "memory")."""

    def serve_on(*lines: str, head: str = BUDGET):
        return serve(head + "models:\n" + "".join(f"  {line}\n" for line in lines), **gpus.env)

    return serve_on


def command(name: str, memory: str, extra: str = "", arguments: str = "") -> str:
    cmd = f"{sys.executable} {SERVER} ${{port}} {arguments}"
    return f"{name}: {{engine: command, cmd: '{cmd}', memory: {{{memory}}}{extra}}}"


def echo(name: str, memory: str, options: str = "") -> str:
    return f"{name}: {{engine: echo, options: {{{options}}}, memory: {{{memory}}}}}"


def shown(swapper, model: str) -> list[str | None]:
    """What the model's worker is shown: the GPUs, and their order."""
    answer = swapper.chat(model)
    assert answer.status_code == 200, answer.text
    return answer.json()


def states(swapper) -> dict[str, str]:
    return {w["model"]: w["state"] for w in swapper.get("/running").json()["running"]}


def entry(swapper, model: str) -> dict:
    [found] = [w for w in swapper.get("/running").json()["running"] if w["model"] == model]
    return found


# ---------------------------------------------------------------- where


def test_a_small_model_leaves_the_large_gpu_to_a_large_one(serve_on):
    swapper = serve_on(command("small", "cuda: 500MiB"), command("large", "cuda: 900MiB"))
    assert shown(swapper, "small") == [SECOND, "PCI_BUS_ID"]
    assert shown(swapper, "large") == [FIRST, "PCI_BUS_ID"]
    assert states(swapper) == {"small": "ready", "large": "ready"}


def test_a_worker_is_shown_the_gpus_that_its_memory_names(serve_on):
    swapper = serve_on(
        command("one", '"cuda:1": 100MiB'),
        command("both", '"cuda:1": 100MiB, "cuda:0": 100MiB'),
        command("own", '"cuda:1": 100MiB', ', env: {CUDA_VISIBLE_DEVICES: "7"}'),
        command("none", "host: 100MiB"),
        echo("echo", '"cuda:1": 100MiB'),
    )
    assert shown(swapper, "one") == [SECOND, "PCI_BUS_ID"]
    assert shown(swapper, "both") == [f"{SECOND},{FIRST}", "PCI_BUS_ID"]
    assert shown(swapper, "own") == ["7", "PCI_BUS_ID"]
    assert shown(swapper, "none") == [None, None]
    swapper.chat("echo")
    environment = psutil.Process(swapper.workers()["echo"]).environ()
    assert environment["CUDA_VISIBLE_DEVICES"] == SECOND


def test_models_load_side_by_side_as_long_as_there_is_room(serve_on):
    slow = "load_s: 1.5"
    models = [echo(name, '"cuda:0": 400MiB', slow) for name in "abc"]
    swapper = serve_on(*models)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = [pool.submit(swapper.chat, name) for name in "ab"]
        eventually(lambda: states(swapper) == {"a": "starting", "b": "starting"})
        for answer in answers:
            assert answer.result().status_code == 200
    assert swapper.chat("c").status_code == 200
    assert len(swapper.workers()) == 2
    assert "c" in swapper.workers()


# ---------------------------------------------------------------- when


def test_what_other_programs_hold_is_not_given(serve_on, gpus):
    swapper = serve_on(
        command("anywhere", "cuda: 550MiB"),
        command("there", '"cuda:1": 550MiB', ", queue_timeout: 2s"),
        command("later", '"cuda:1": 550MiB'),
    )
    gpus.hold((1, 0, 500))
    assert shown(swapper, "anywhere") == [FIRST, "PCI_BUS_ID"]
    refused = swapper.chat("there")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "timeout")
    assert "other programs hold cuda:1 100 MiB" in refused.json()["error"]["message"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(swapper.chat, "later")
        eventually(lambda: states(swapper) == {"anywhere": "ready", "later": "waiting"})
        gpus.hold()
        assert answer.result().status_code == 200


def test_memory_is_not_given_again_before_the_driver_has_it_back(serve_on, gpus):
    swapper = serve_on(
        command("first", '"cuda:0": 800MiB'),
        command("second", '"cuda:0": 700MiB'),
        command("neighbour", '"cuda:0": 150MiB'),
    )
    for model in ("neighbour", "first"):
        assert shown(swapper, model)[0] == FIRST
    held = [(0, swapper.workers()["first"], 800), (0, swapper.workers()["neighbour"], 150)]
    gpus.hold(*held)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(swapper.chat, "second")
        eventually(lambda: states(swapper).get("first") is None)
        for _ in range(10):  # its process is gone, and its memory is not back
            assert states(swapper) == {"neighbour": "ready", "second": "waiting"}
            time.sleep(0.1)
        gpus.hold(held[1])
        freed_at = time.monotonic()
        eventually(lambda: "second" in swapper.workers())
        assert time.monotonic() - freed_at < 2.0
        assert answer.result().status_code == 200
    assert sorted(swapper.workers()) == ["neighbour", "second"]


def test_one_that_sleeps_leaves_its_gpu_and_is_charged_to_the_host(serve_on, gpus):
    """Another process's memory beside it: the second comes only when the driver has the first's back."""
    swapper = serve_on(
        echo("first", '"cuda:0": 800MiB, host: 50MiB', "can_sleep: true"),
        echo("second", '"cuda:0": 700MiB, host: 50MiB', "can_sleep: true"),
    )
    assert swapper.chat("first").status_code == 200
    pid = swapper.workers()["first"]
    gpus.hold((0, pid, 800))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(swapper.chat, "second")
        eventually(lambda: states(swapper).get("first") == "sleeping")
        for _ in range(5):  # it sleeps, and its memory is not back
            assert states(swapper) == {"first": "sleeping", "second": "waiting"}
            time.sleep(0.1)
        gpus.hold()
        assert answer.result().status_code == 200
    assert list(entry(swapper, "first")["memory"]["measured"]) == ["host"]
    assert swapper.chat("first").status_code == 200
    assert states(swapper) == {"first": "ready", "second": "sleeping"}
    assert swapper.workers()["first"] == pid


# ---------------------------------------------------------------- how much


def test_a_load_that_runs_out_of_memory_is_tried_once_more_with_more_room(serve_on, tmp_path):
    failures = tmp_path / "failures"
    failures.write_text("once\n")
    swapper = serve_on(
        command("neighbour", '"cuda:0": 200MiB'),
        command("greedy", '"cuda:0": 700MiB', arguments=str(failures)),
    )
    shown(swapper, "neighbour")
    assert shown(swapper, "greedy")[0] == FIRST
    assert sorted(swapper.workers()) == ["greedy"]  # 840 MiB leave no room for the neighbour
    assert entry(swapper, "greedy")["memory"]["estimated"] == {"cuda:0": 840 << 20}


def test_a_load_that_runs_out_of_memory_twice_is_an_error_with_figures(serve_on, tmp_path):
    failures = tmp_path / "failures"
    failures.write_text("1\n2\n3\n4\n")
    swapper = serve_on(command("greedy", '"cuda:0": 900MiB', arguments=str(failures)))
    refused = swapper.chat("greedy")
    assert refused.status_code == 503
    assert float(refused.headers["retry-after"]) >= 1
    error = refused.json()["error"]
    assert "out of memory" in error["message"].lower()
    assert "cuda:0 1000 MiB" in error["message"]
    assert len(failures.read_text().splitlines()) == 2
    failures.write_text("")
    time.sleep(float(refused.headers["retry-after"]))
    assert shown(swapper, "greedy")[0] == FIRST


def test_estimate_and_truth_are_shown_and_outlive_a_restart(serve_on, gpus, tmp_path):
    models = [echo("a", 'host: 100MiB, "cuda:0": 500MiB', "load_s: 0.7, memory_bytes: 50000000")]
    swapper = serve_on(*models)
    swapper.chat("a")
    gpus.hold((0, swapper.workers()["a"], 444))
    measured = eventually(lambda: measured_of(swapper, "a", "cuda:0"))
    assert measured["cuda:0"] == 444 << 20
    assert 50_000_000 < measured["host"] < 100 << 20
    assert "cuda:0 444 MiB (~500 MiB)" in tell("ps", SWAPPER_URL=swapper.url)
    assert swapper.stop() == 0
    gpus.hold()
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_RUNTIME_DIR": ""}
    [line] = [
        line
        for line in tell("check", str(tmp_path / "config.yaml"), **state, **gpus.env).splitlines()
        if line.startswith("a ")
    ]
    assert "host 100 MiB, cuda:0 500 MiB" in line
    assert "cuda:0 444 MiB, loads in " in line
    again = serve_on(*models)
    again.chat("a")
    assert entry(again, "a")["memory"]["estimated"] == measured


def measured_of(swapper, model: str, device: str) -> dict[str, int] | None:
    measured = entry(swapper, model)["memory"]["measured"]
    return measured if device in measured else None


def tell(*arguments: str, **env: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "swapper", *arguments],
        env={**os.environ, **env}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout
