"""The small program between the proxy and a worker. Started by `process_group`, never imported.

    warden.py leash PARENT ARGV...
        becomes ARGV, which the kernel kills as soon as PARENT is gone.

    warden.py guard REPORT_FD CWD STOP_LIMIT_S COUNT STOP_CMD... ARGV...
        stays, and runs ARGV as its child. For command lines that nobody here wrote, whose
        processes fork, daemonise and change their session as they like.

The guard's rules:

1. It is a subreaper: a descendant whose parent has died becomes its child. So it needs to end only
   its own children, again and again, and in the end has ended every descendant there ever was. Only
   the guard reaps them, hence no process number it kills can have passed to somebody else.
2. Its standard input is a pipe of which the proxy alone has the other end. Its end says that the
   proxy is gone, or wants to wait no longer: STOP_CMD (a moment is granted to it), then rule 1.
3. On TERM it runs STOP_CMD; without one, or if that fails, the command's process group gets TERM.
4. When the command ends, by itself or not, the rest is ended and the guard ends as the command did.

Standard library only, and little of it: it runs with `-I -S` and starts in some 15 ms.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` would take a quarter of the start
    from collections.abc import Sequence
    from typing import NoReturn

ORDERLY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
OOM_SCORE_ADJ = 500  # should memory run out, the kernel is to take a worker, not the proxy


def main(mode: str, *arguments: str) -> NoReturn:
    """`leash` or `guard`, see above."""
    if mode == "leash":
        leash(int(arguments[0]), arguments[1:])
    report_fd, cwd, stop_limit_s, count = arguments[:4]
    commands = arguments[4:]
    stop_cmd, argv = commands[: int(count)], commands[int(count) :]
    Guard(argv, stop_cmd, cwd, float(stop_limit_s), int(report_fd)).run()


def leash(parent: int, argv: Sequence[str]) -> NoReturn:
    """Become `argv`, bound to the life of `parent`."""
    harden()
    die_with(parent)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(argv[0], list(argv))


class Guard:
    """One command and all its descendants."""

    def __init__(
        self,
        argv: Sequence[str],
        stop_cmd: Sequence[str],
        cwd: str,
        stop_limit_s: float,
        report_fd: int,
    ) -> None:
        self.argv, self.stop_cmd, self.cwd = argv, stop_cmd, cwd
        self.stop_limit_s = stop_limit_s
        self.report_fd = report_fd
        self.status: int | None = None  # of the command, once it has ended
        self.stopper: int | None = None  # the running stop command
        self.is_stopping = False
        self.is_orphaned = False  # standard input has ended

    def run(self) -> NoReturn:
        """Watch over the command until nothing of it is left; then end as it did."""
        os.set_inheritable(self.report_fd, False)
        dump_no_core()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.listen()
        self.command = spawn(self.argv, self.cwd, self.report_fd)
        while self.status is None and not self.is_orphaned:
            self.attend()
        self.finish_stop_cmd()
        self.is_stopping = True
        self.end_children()
        end_like(self.status if self.status is not None else 0)

    def listen(self) -> None:
        """Have signals and the end of standard input wake `attend`."""
        self.signals, wake = os.pipe()
        os.set_blocking(self.signals, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (*ORDERLY, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.poll = select.poll()
        self.poll.register(self.signals, select.POLLIN)
        self.poll.register(0, select.POLLIN)

    def attend(self, timeout_s: float | None = None) -> None:
        """Wait for something to happen, and act on it."""
        timeout_ms = None if timeout_s is None else max(0, int(timeout_s * 1000))
        ready = {fd for fd, _ in self.poll.poll(timeout_ms)}
        if 0 in ready and not os.read(0, 4096):
            self.is_orphaned = True
            self.poll.unregister(0)
        if self.signals in ready and any(n in ORDERLY for n in os.read(self.signals, 4096)):
            self.stop()
        self.reap()

    def stop(self) -> None:
        """Ask the command to end."""
        if not self.stop_cmd:
            self.signal_command()
        elif not self.is_stopping:
            self.start_stop_cmd()
        self.is_stopping = True

    def signal_command(self) -> None:
        if self.status is None:  # not reaped: the number is still the command's
            try:
                os.killpg(self.command, signal.SIGTERM)
            except (ProcessLookupError, PermissionError):
                os.kill(self.command, signal.SIGTERM)  # its session is not made yet

    def start_stop_cmd(self) -> None:
        pid = str(self.command)
        self.stopper = spawn([word.replace("${pid}", pid) for word in self.stop_cmd], self.cwd)

    def finish_stop_cmd(self) -> None:
        """Let the stop command end; where the proxy is gone, start it first if it never ran."""
        had_its_time = self.is_stopping
        if self.is_orphaned and self.stop_cmd and not had_its_time:
            self.start_stop_cmd()
        deadline = time.monotonic() + self.stop_limit_s
        while self.stopper is not None and (left := deadline - time.monotonic()) > 0:
            if self.is_orphaned and had_its_time:
                return
            self.attend(left)

    def reap(self) -> bool:
        """Take note of every child that has ended; False when no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            self.note(pid, os.waitstatus_to_exitcode(status))

    def note(self, pid: int, status: int) -> None:
        if pid == self.command:
            self.status = status
        elif pid == self.stopper:
            self.stopper = None
            if status and self.is_stopping:
                self.signal_command()

    def end_children(self) -> None:
        """Kill until no child is left, those included that come to us while we do it."""
        if sys.platform != "linux":
            kill(-self.command)  # orphans do not come to us there
        while self.reap():
            children = self.children()
            refused = [pid for pid in children if not kill(pid)]
            if refused and refused == children:
                print(f"swapper: may not end processes {refused} of this worker", file=sys.stderr)
                return
            self.attend(0.05)

    def children(self) -> list[int]:
        me = os.getpid()
        try:
            with open(f"/proc/self/task/{me}/children") as file:
                return [int(word) for word in file.read().split()]
        except FileNotFoundError:
            pass
        try:
            return [int(n) for n in os.listdir("/proc") if n.isdigit() and parent_of(n) == me]
        except FileNotFoundError:  # no /proc, so no subreaper either: the group is all we know
            return [-self.command]


def spawn(argv: Sequence[str], cwd: str, report_fd: int | None = None) -> int:
    """Start `argv` in a session of its own, tied to this process; its process number.

    What keeps it from starting is reported, and its exit status then is 127.
    """
    warden = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERLY)  # until they mean the new process alone
    if pid := os.fork():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERLY)
        return pid
    try:
        os.setsid()
        harden()
        die_with(warden)
        for number in (*ORDERLY, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERLY)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.chdir(cwd)
        os.execvp(argv[0], list(argv))
    except OSError as error:
        tell(report_fd, *why_not(error, argv[0], cwd))
    finally:
        os._exit(127)


def why_not(error: OSError, program: str, cwd: str) -> tuple[str, str]:
    """Failure kind and reason of a program that could not be started."""
    if not os.path.isdir(cwd):
        return (
            "missing_file",
            f"the working folder '{cwd}' does not exist; create it or correct `cwd`",
        )
    if isinstance(error, PermissionError):
        return (
            "missing_command",
            f"'{program}' may not be executed; make it executable (chmod +x) or correct `cmd`",
        )
    if os.path.exists(program):
        return (
            "missing_command",
            f"'{program}' exists, but the interpreter named in its first line does not; install that",
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return (
            "missing_command",
            f"'{program}' was not found; install it, or give its full path in `cmd`",
        )
    return "missing_command", f"'{program}' could not be started: {error.strerror}"


def tell(report_fd: int | None, kind: str, reason: str) -> None:
    """Report a failure as the worker contract has it; without a report, as a line of output."""
    import json

    if report_fd is None:
        os.write(2, f"swapper: stop command: {reason}\n".encode())
        return
    line = json.dumps({"event": "failed", "kind": kind, "reason": reason})
    os.write(report_fd, line.encode() + b"\n")


def harden() -> None:
    """No core dumps, and a higher place on the kernel's list when memory runs out."""
    dump_no_core()
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(OOM_SCORE_ADJ))
    except OSError:
        pass


def dump_no_core() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` (the thread that forked it) ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def parent_of(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def kill(pid: int) -> bool:
    """Whether it may be killed. A negative number means the process group."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def end_like(status: int) -> NoReturn:
    """Exit with the status, or by the signal, that ended the command."""
    if status < 0:
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)


if __name__ == "__main__":
    main(*sys.argv[1:])
