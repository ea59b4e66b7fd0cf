"""What breaks breaks alone, says so, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from tests.system.conftest import PATIENCE_S, all_gone, eventually

SERVER = Path(__file__).with_name("command_server.py")
SLOW = """
models:
  slow: {engine: echo, options: {tokens_per_s: 20}}
  other: {engine: echo}
"""
LONG = "a long answer, spoken slowly, one letter after the other, " * 4


def streaming(swapper, model, text=LONG):
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]}
    url = f"{swapper.url}/v1/chat/completions"
    return httpx.stream("POST", url, json=body, timeout=PATIENCE_S)


class TestTheProxyDies:
    """kill -9 of swapper itself."""

    CONFIG = f"""
models:
  own: {{engine: echo}}
  foreign: {{engine: command, cmd: "{sys.executable} {SERVER} ${{port}}"}}
"""

    def test_every_worker_is_gone_within_two_seconds_and_a_restart_serves_at_once(self, serve):
        swapper = serve(self.CONFIG)
        assert swapper.chat("own").status_code == swapper.chat("foreign").status_code == 200
        family = swapper.descendants()
        assert len(family) >= 4  # two workers, a guard, and a grandchild in a session of its own
        swapper.stop(signal.SIGKILL)
        eventually(lambda: all_gone(family), within_s=2.0)
        again = serve(self.CONFIG, "--listen", swapper.url.removeprefix("http://"))
        assert again.chat("own").status_code == again.chat("foreign").status_code == 200

    def test_also_while_a_model_loads(self, serve):
        swapper = serve("models: {a: {engine: echo, options: {hang_load: true}}}")
        thread = threading.Thread(target=self.ask_in_vain, args=(swapper,))
        thread.start()
        family = eventually(lambda: swapper.descendants() or None)
        swapper.stop(signal.SIGKILL)
        eventually(lambda: all_gone(family), within_s=2.0)
        thread.join()

    def ask_in_vain(self, swapper):
        with pytest.raises(httpx.HTTPError):
            swapper.chat("a")


class TestAWorkerDies:
    """kill -9 of a worker."""

    def test_a_stream_says_that_it_broke_and_the_next_request_works(self, serve):
        swapper = serve(SLOW)
        with streaming(swapper, "slow") as answer:
            lines = answer.iter_lines()
            for _ in range(5):
                next(lines)
            os.kill(swapper.workers()["slow"], signal.SIGKILL)
            rest = [line for line in lines if line]
        assert "error" in json.loads(rest[-1].removeprefix("data: "))
        assert "[DONE]" not in "".join(rest)
        assert swapper.chat("slow", "again").status_code == 200

    def test_a_request_that_had_sent_nothing_is_tried_again(self, serve):
        swapper = serve("models: {a: {engine: echo, options: {first_token_s: 1.0}}}")
        assert swapper.chat("a").status_code == 200
        answers = []
        thread = threading.Thread(target=lambda: answers.append(swapper.chat("a", "twice")))
        thread.start()
        first = swapper.workers()["a"]
        eventually(lambda: swapper.get("/running").json()["running"][0]["in_flight"] == 1)
        os.kill(first, signal.SIGKILL)
        thread.join()
        assert answers[0].json()["choices"][0]["message"]["content"] == "twice"
        assert swapper.workers()["a"] != first

    def test_a_crash_is_told_on_the_terminal_and_in_the_log(self, serve):
        swapper = serve("models: {a: {engine: echo, options: {exit_after_tokens: 2}}}")
        assert swapper.chat("a").status_code >= 500
        assert "worker failed" in swapper.output()
        assert swapper.get("/health").status_code == 200


class TestTheEnd:
    """TERM."""

    def test_streams_finish_nothing_new_begins_and_it_exits_with_0(self, serve):
        swapper = serve(SLOW)
        family = []
        with streaming(swapper, "slow", "thirty letters, not very slowly") as answer:
            lines = answer.iter_lines()
            next(lines)
            family = swapper.descendants()
            swapper.process.send_signal(signal.SIGTERM)
            eventually(lambda: "stopping" in swapper.output())
            with pytest.raises(httpx.HTTPError):
                swapper.chat("slow").raise_for_status()
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert swapper.process.wait(PATIENCE_S) == 0
        assert all_gone(family)

    def test_a_worker_that_does_not_listen_to_term_is_killed(self, serve):
        swapper = serve("""
models: {deaf: {engine: echo, stop_grace: 500ms, options: {ignore_term: true}}}
""")
        swapper.chat("deaf")
        family = swapper.descendants()
        assert swapper.stop() == 0
        assert all_gone(family)

    def test_whoever_waits_is_refused(self, serve):
        swapper = serve("models: {a: {engine: echo, options: {hang_load: true}}}")
        answers = []
        thread = threading.Thread(target=lambda: answers.append(swapper.chat("a")))
        thread.start()
        eventually(lambda: swapper.descendants() or None)
        assert swapper.stop() == 0
        thread.join()
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "shutting_down"


class TestWhatCannotBeServed:
    """One bad model: a clear sentence for its own clients, nothing for the others."""

    @pytest.fixture
    def refused(self, serve, tmp_path):
        """Asks for a model beside a good one that is loaded; gives the error."""

        def refused(model: str) -> dict[str, object]:
            swapper = serve(f"max_loaded: 2\nmodels:\n  good: {{engine: echo}}\n  bad: {model}")
            assert swapper.chat("good").status_code == 200
            before = swapper.workers()["good"]
            answer = swapper.chat("bad")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert swapper.workers()["good"] == before
            assert swapper.chat("good").status_code == 200
            error = answer.json()["error"]
            assert error["code"] == "load_failed"
            assert "Traceback" not in error["message"]
            return error

        return refused

    @pytest.mark.parametrize(
        ("content", "words"), [(b"not a model at all", "not a GGUF"), (b"GGUF\3\0\0\0", "cut off")]
    )
    def test_a_file_that_is_no_whole_gguf(self, refused, tmp_path, content, words):
        (tmp_path / "x.gguf").write_bytes(content)
        error = refused(f"{{engine: llamacpp, path: {tmp_path}/x.gguf}}")
        assert error["cause"] == "bad_file"
        assert words in error["message"]

    def test_a_missing_file(self, refused, tmp_path):
        error = refused(f"{{engine: llamacpp, path: {tmp_path}/none.gguf}}")
        assert error["cause"] == "missing_file"
        assert "none.gguf" in error["message"]

    def test_a_missing_command(self, refused):
        error = refused("{engine: command, cmd: 'no-such-program --port ${port}'}")
        assert error["cause"] == "missing_command"
        assert "no-such-program" in error["message"]

    def test_a_command_that_ends_at_once(self, refused):
        error = refused("{engine: command, cmd: 'sh -c \"echo woe; exit 3\"'}")
        assert "3" in error["message"]

    def test_a_worker_that_never_gets_ready(self, refused):
        error = refused("{engine: echo, load_timeout: 500ms, options: {hang_load: true}}")
        assert error["cause"] == "load_timeout"

    def test_a_worker_that_reports_a_failure(self, refused):
        assert (
            refused("{engine: echo, options: {fail_load: unsupported}}")["cause"] == "unsupported"
        )

    def test_a_port_taken_by_another_program(self, refused):
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            error = refused(f"{{engine: command, cmd: sleep 100, url: 'http://127.0.0.1:{port}'}}")
        assert error["cause"] == "port_taken"


def test_our_own_port_taken(serve):
    first = serve("models: {a: {engine: echo}}")
    address = first.url.removeprefix("http://")
    second = serve("models: {a: {engine: echo}}", "--listen", address, wait=False)
    assert second.process.wait(PATIENCE_S) == 1
    assert f"cannot listen on {address}" in second.output()
    assert first.chat("a").status_code == 200


def test_a_wrong_configuration_is_refused_with_file_line_and_nearest_key(serve):
    swapper = serve("models:\n  a:\n    engin: echo\n", wait=False)
    assert swapper.process.wait(PATIENCE_S) == os.EX_CONFIG
    assert "config.yaml:3" in swapper.output()
    assert "engine" in swapper.output()


class TestAClientLeaves:
    """Its place is free at once, and the load it started goes on."""

    def test_while_loading(self, serve):
        swapper = serve("models: {a: {engine: echo, options: {load_s: 1.0}}}")
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{swapper.url}/v1/chat/completions",
                json={"model": "a", "messages": [{"role": "user", "content": "x"}]},
                timeout=0.3,
            )
        eventually(lambda: swapper.get("/running").json()["running"][0]["waiting"] == 0)
        eventually(lambda: swapper.get("/running").json()["running"][0]["state"] == "ready")

    def test_while_streaming(self, serve):
        swapper = serve(SLOW)
        with streaming(swapper, "slow") as answer:
            next(answer.iter_lines())
        running = lambda: swapper.get("/running").json()["running"][0]  # noqa: E731
        eventually(lambda: running()["in_flight"] == 0, within_s=2.0)
        socket_path = next(
            c.laddr
            for c in psutil.Process(running()["pid"]).net_connections("unix")
            if c.laddr and c.status == "NONE"
        )
        with httpx.Client(transport=httpx.HTTPTransport(uds=socket_path)) as worker:
            metrics = lambda: worker.get("http://worker/metrics").text  # noqa: E731
            eventually(lambda: "requests_running 0" in metrics() or "running 0" in metrics())
