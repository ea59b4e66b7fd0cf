"""Has workers of one engine forked from a process that has its modules imported already.

That process (`backends/serving/parent.py`) is started when the first worker is wanted, and ends when
none has been there for a while. It forks workers as children of *this* process, so all that holds for
a worker that was started holds for them. Without it (no Linux, an old kernel, an import that fails)
workers are started as ever.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from swapper.runtime.process_group import MARK, WARDEN, Process, Program, environment_of, sweep

IDLE_S: Final = 1800.0
ANSWER_S: Final = 60.0  # imports from a cold disk
PACKET_BYTES: Final = 65_536

log = structlog.get_logger(__name__)


class Parent:
    """One engine's; a `Forking`. `program`: what to run for it. Use it on the event loop's own thread.

    One that never forked anything is not tried again; one that ended later is made anew.
    `is_waited_for`: by the first worker, while it imports; otherwise workers are started as ever until it
    is ready, and `make` has it there for those to come.
    """

    def __init__(
        self,
        program: Program,
        *,
        is_waited_for: bool = True,
        idle_s: float = IDLE_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._program = program
        self._is_waited_for = is_waited_for
        self._idle_s = idle_s
        self._answer_s = answer_s
        self._running: _Running | None = None
        self._has_forked = False
        self._is_hopeless = sys.platform != "linux"
        self._is_closed = False
        self._users = 0
        self._rest: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[int]] = set()

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._running.process.pid if self._running else None

    def enter(self) -> None:
        """Somebody may want a worker forked, or has one, until `leave`."""
        self._users += 1
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def leave(self) -> None:
        """As often as `enter`. When nobody is left, the process ends after a while."""
        self._users -= 1
        if not self._users and not self._is_closed:
            self._rest = self._loop.call_later(self._idle_s, self._end, "it was idle")

    def make(self) -> None:
        """Have the process there, where it can be."""
        if self._running is not None or self._is_hopeless or self._is_closed:
            return
        try:
            self._running = _Running(self._program, self._on_end)
        except OSError:
            self._is_hopeless = True

    async def fork(
        self, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]
    ) -> Process | None:
        """See `Forking`."""
        is_ready = self._running is not None and self._running.is_ready
        if self._is_hopeless or not (is_ready or self._is_waited_for):
            return None
        answer = await self._ask({"argv": [*argv], "env": {**env}}, descriptors)
        if self._is_closed:
            raise OSError(errno.ECANCELED, "swapper is ending")
        if pid := answer.get("pid"):
            self._has_forked = True
            return _Forked(pid)
        if not self._has_forked:
            self._is_hopeless = True
            self._end("it cannot fork")
        log.info("a worker is started, not forked", program=self._program.argv[-1], **answer)
        if self._running is None:  # it may have forked a worker and not told
            await asyncio.to_thread(_sweep, self._program.mark, env.get(MARK, ""))
        return None

    async def close(self) -> None:
        """End the process, not its workers, and wait for it. Nothing is forked any more."""
        self._is_closed = True
        if self._rest is not None:
            self._rest.cancel()
        self._end("swapper is ending")
        if self._ending:
            await asyncio.wait(self._ending)

    async def _ask(self, request: dict[str, Any], descriptors: Sequence[int]) -> dict[str, Any]:
        try:
            if self._running is None:
                self._running = _Running(self._program, self._on_end)
            answer = self._running.ask(json.dumps(request).encode(), descriptors)
            async with asyncio.timeout(self._answer_s):
                return await answer
        except TimeoutError:
            self._end("it does not answer")  # a late worker ends by itself: its pipes are closed
            return {"error": "it does not answer"}
        except OSError as error:
            return {"error": str(error)}

    def _on_end(self, reason: str) -> None:
        """It has ended by itself."""
        self._is_hopeless = self._is_hopeless or not self._has_forked
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            running.end(reason)
            task = self._loop.create_task(asyncio.to_thread(running.process.wait))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def _sweep(*marks: str) -> None:
    for mark in filter(None, marks):
        sweep(mark)


class _Forked:
    """A child of ours that another process has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def wait(self) -> int:
        """See `Process`."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


class _Running:
    """The process, and the questions it has not answered yet. `on_end`: it has ended by itself."""

    def __init__(self, program: Program, on_end: Callable[[str], None]) -> None:
        self.is_ready = False  # all is imported
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._waiting: deque[asyncio.Future[dict[str, Any]]] = deque()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", WARDEN, "leash", str(os.getpid()), *program.argv],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # what matters is told as an answer
                    start_new_session=True,
                    env=environment_of(program),
                )
            except BaseException:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._read)

    def ask(self, packet: bytes, descriptors: Sequence[int]) -> asyncio.Future[dict[str, Any]]:
        """The answer to come. Raises OSError."""
        socket.send_fds(self._socket, [packet], list(descriptors))
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting.append(answer)
        return answer

    def end(self, reason: str) -> None:
        """Kill it, and answer what is unanswered."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self.process.kill()
        while self._waiting:
            self._answer({"error": reason})

    def _read(self) -> None:
        try:
            packet = self._socket.recv(PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self._answer(json.loads(packet))
        else:
            self._on_end("it has ended")

    def _answer(self, answer: dict[str, Any]) -> None:
        if not answer:
            self.is_ready = True
        elif self._waiting and not (waiting := self._waiting.popleft()).done():
            waiting.set_result(answer)
