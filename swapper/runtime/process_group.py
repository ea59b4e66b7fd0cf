"""Worker processes that are gone when the proxy is, whatever ended it, and their children with them.

Who sees to it, by way of ending:

- the proxy stops a worker: TERM first; by force, KILL to its process group, or to the whole tree
  that its guard (`warden.py`) holds together;
- the proxy is killed: the pipes it held as its workers' standard input close. Guards end their
  trees; our own workers (`backends`) exit, and where one hangs, the kernel kills it (`leash`);
- a guard is killed: the kernel kills its command, `sweep` finds the rest by a mark in their
  environment. So does the next proxy with what may be left of a machine's bad day.

Processes must be started on the event loop's own thread: the kernel ties the leash to the thread
that forked, and kills when that ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from swapper.runtime.line_pipe import LinePipe

WARDEN = str(Path(__file__).with_name("warden.py"))
MARK = "SWAPPER_WORKER"  # in the environment of every process of a worker
REPORT_LINE_BYTES = 65_536
STOP_CMD_LIMIT_S = 5.0  # for a stop command when the proxy is gone
LEFTOVERS_S = STOP_CMD_LIMIT_S + 1.0  # for guards of a proxy that was killed to finish their work
UNKILLABLE_S = 10.0  # what has not died by then hangs in the kernel
GUARD_LIMIT_S = STOP_CMD_LIMIT_S + UNKILLABLE_S  # a guard that takes longer hangs itself
LINGER_S = 2.0  # how long killed members of a group are waited for

# Of the proxy's environment, what a worker has no business with: its supervisor's channels, its key.
PRIVATE = frozenset(
    (
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "SWAPPER_API_KEY",
    )
)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `is_foreign`: not one of ours, so it runs under a guard, with its `stop_cmd`.

    `env` is laid over the proxy's environment. `mark` tells its processes from all others. `parent`
    may have a process ready that needs only be forked; where it has not, the program is started.
    """

    argv: tuple[str, ...]
    mark: str
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    stop_cmd: tuple[str, ...] = ()
    is_foreign: bool = False
    parent: Forking | None = None


class Process(Protocol):
    """A child of ours, as `subprocess.Popen` has it."""

    pid: int

    def wait(self) -> int:
        """Block until it ends; its exit status, negative for a signal. May be asked again."""
        ...


class Forking(Protocol):
    """Has workers forked as children of this process; see `parent.Parent`."""

    async def fork(
        self, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]
    ) -> Process | None:
        """The process, in a session of its own, with its standard input, log and report; None: start it
        otherwise. Raises OSError where it is not to be started at all."""
        ...


@dataclass(frozen=True, slots=True)
class Pipes:
    """Between a process and us; where each of them reads, and where it writes."""

    stdin: tuple[int, int]
    log: tuple[int, int]  # one for output and errors, so that lines keep their order
    report: tuple[int, int]

    @property
    def theirs(self) -> tuple[int, int, int]:
        return self.stdin[0], self.log[1], self.report[1]

    @property
    def ours(self) -> tuple[int, int, int]:
        return self.stdin[1], self.log[0], self.report[0]


class ProcessGroup:
    """A running program with all its descendants. Made by `start`."""

    def __init__(
        self,
        program: Program,
        process: Process,
        pipes: Pipes,
        on_line: Callable[[str], None],
        on_report: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._program = program
        self._process = process
        self._was_killed = False
        self._exited: asyncio.Future[int] = self._loop.create_future()
        stdin, log, report = pipes.ours
        self._stdin: int | None = stdin
        self._output = LinePipe(log, on_line)
        self._report = LinePipe(report, on_report, REPORT_LINE_BYTES)
        self._watch()

    @classmethod
    async def start(
        cls, program: Program, on_line: Callable[[str], None], on_report: Callable[[str], None]
    ) -> ProcessGroup:
        """Raises OSError when there is no process to be had (out of memory or of process numbers); a
        program that cannot be executed is reported and ends by itself with status 127."""
        pipes = Pipes(os.pipe(), os.pipe(), os.pipe())
        try:
            process = await _forked(program, pipes) or _spawn(program, pipes)
        except BaseException:
            _close(*pipes.ours)
            raise
        finally:
            _close(*pipes.theirs)
        return cls(program, process, pipes, on_line, on_report)

    @property
    def pid(self) -> int:
        """The first process; all others of the program descend from it."""
        return self._process.pid

    async def wait(self) -> int:
        """Its exit status (negative: the signal), once no process is left and all output is read."""
        status = await asyncio.shield(self._exited)
        await self._until_group_is_empty()
        if self._may_have_left_some(status):
            await asyncio.to_thread(sweep, self._program.mark)
        self._report.drain()
        self._output.drain()
        return status

    def terminate(self) -> None:
        """Ask it to end in good order."""
        self._send(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """End it, and all its descendants, by force."""
        self._was_killed = True
        self._close_stdin()
        if self._program.is_foreign:  # the guard does it; it must live until it has
            self._loop.call_later(GUARD_LIMIT_S, self._send, os.kill, signal.SIGKILL)
        else:
            self._send(os.killpg, signal.SIGKILL)

    def _may_have_left_some(self, status: int) -> bool:
        """Descendants, in other process groups than its own."""
        if self._program.is_foreign:
            return status == -signal.SIGKILL  # perhaps it was the guard that was killed
        return status != 0 or self._was_killed

    def _send(self, send: Callable[[int, int], None], number: int) -> None:
        if not self._exited.done():  # not reaped, so the number is still its own
            try:
                send(self._process.pid, number)
            except (ProcessLookupError, PermissionError):  # the latter: macOS, for a zombie
                pass

    def _watch(self) -> None:
        """Have `_reap` called when the process has ended."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or forbidden
            threading.Thread(target=self._watch_blocking, daemon=True).start()
            return

        def ended() -> None:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
            self._reap()

        self._loop.add_reader(pidfd, ended)

    def _watch_blocking(self) -> None:
        self._process.wait()
        self._loop.call_soon_threadsafe(self._reap)

    def _reap(self) -> None:
        """The first process has ended. What is left of its group goes with it."""
        self._send(os.killpg, signal.SIGKILL)
        status = self._process.wait()
        self._close_stdin()
        self._exited.set_result(status)

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    async def _until_group_is_empty(self) -> None:
        deadline = self._loop.time() + LINGER_S
        while _group_exists(self.pid) and self._loop.time() < deadline:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.005)


def sweep(mark: str, patience_s: float = 0.0) -> int:
    """Kill every process whose mark begins with `mark`, until none is found; how many there were.

    Guards that are at work on it already are left to do it for `patience_s`. Blocks for that long
    and some 10 ms. Finds only what kept its environment: a second net, not the first.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + patience_s
    while found := _marked(mark):
        if (late_s := time.monotonic() - deadline) > 0 or not any(map(_is_guard, found)):
            refused = [pid for pid in found if not _kill(pid)]
            if refused == found or late_s > UNKILLABLE_S:
                break
            killed.update(found)
        time.sleep(0.01)
    return len(killed)


async def _forked(program: Program, pipes: Pipes) -> Process | None:
    if program.parent is None:
        return None
    return await program.parent.fork(program.argv, environment_of(program), pipes.theirs)


def _spawn(program: Program, pipes: Pipes) -> Process:
    stdin, log, report = pipes.theirs
    env = environment_of(program)
    if not program.is_foreign:
        env["SWAPPER_REPORT_FD"] = str(report)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", WARDEN, *_arguments(program, report)],
        stdin=stdin,
        stdout=log,
        stderr=log,
        pass_fds=(report,),
        start_new_session=True,
        env=env,
    )


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _arguments(program: Program, report_fd: int) -> list[str]:
    if not program.is_foreign:
        return ["leash", str(os.getpid()), *program.argv]
    count, limit = str(len(program.stop_cmd)), str(STOP_CMD_LIMIT_S)
    cwd = program.cwd or "."
    return ["guard", str(report_fd), cwd, limit, count, *program.stop_cmd, *program.argv]


def environment_of(program: Program) -> dict[str, str]:
    """What is its own comes first, the mark before all: where a forked process has not the room to show
    all of it, the proxy's is left out."""
    own = {MARK: program.mark, **{n: value for n, value in program.env.items() if n != MARK}}
    others = {n: value for n, value in os.environ.items() if n not in PRIVATE and n not in own}
    return {**own, **others}


def _group_exists(pgid: int) -> bool:
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _marked(mark: str) -> list[int]:
    """Looks twice: a process may fork and end between being listed and being looked at."""
    for _ in range(2):
        if found := [pid for pid in psutil.pids() if _is_marked(pid, mark)]:
            return found
        time.sleep(0.005)
    return []


def _is_marked(pid: int, mark: str) -> bool:
    try:
        return pid != os.getpid() and psutil.Process(pid).environ().get(MARK, "").startswith(mark)
    except (psutil.Error, OSError):
        return False


def _is_guard(pid: int) -> bool:
    try:
        return WARDEN in psutil.Process(pid).cmdline()
    except (psutil.Error, OSError):
        return False


def _kill(pid: int) -> bool:
    """Whether it may be killed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True
