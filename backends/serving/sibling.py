"""Forks a process that becomes the child of our parent, not ours. Linux only, through clone(2).

So whoever started us supervises it as if it had started it itself: it waits for it and has its exit
status, the kernel's death signal follows the starter, and our own end concerns nobody.

`os.fork` cannot do that, so what it does around the system call is done here: Python's part by the
functions that CPython exports for it, glibc's by having the kernel write the new thread's number
where glibc keeps it. Handlers that C libraries registered with pthread_atfork are not called.

Not through clone3(2), which is the same on every machine: service managers forbid it where they forbid
namespaces (systemd's RestrictNamespaces), for their filters cannot see its flags.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x8000, 0x0020_0000, 0x0100_0000
# The call's number, and which of its arguments says where the new thread's number goes.
CLONE = {"x86_64": (56, 3), "aarch64": (220, 4)}
PR_GET_TID_ADDRESS = 40
PR_SET_PDEATHSIG = 1


def fork_sibling() -> int:
    """As `os.fork`: 0 in the new process, its number in this one. Raises OSError where the kernel or
    the C library does not allow it, or this process has other threads."""
    if len(os.listdir("/proc/self/task")) != 1:
        raise OSError(errno.EBUSY, "there are threads, which a fork would not copy")
    libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock, as os.fork does
    call, place = _clone()
    arguments = [ctypes.c_ulong(0)] * 5
    arguments[0] = ctypes.c_ulong(
        CLONE_PARENT | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | signal.SIGCHLD
    )
    arguments[place] = ctypes.c_ulong(_thread_number(libc))
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = libc.syscall(ctypes.c_long(call), *arguments)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        number_of_error = ctypes.get_errno()
        raise OSError(number_of_error, os.strerror(number_of_error))
    return pid


def _clone() -> tuple[int, int]:
    machine = os.uname().machine
    if machine not in CLONE:
        raise OSError(errno.ENOSYS, f"how to fork on {machine} is not known")
    return CLONE[machine]


def die_with(parent: int, signal_number: int) -> None:
    """Have the kernel send this process the signal when `parent` (the thread that forked) ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def show_as(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Make `argv` our command line and `env` our environment, for us and for those who look into /proc.

    What does not fit into the room that the kernel made when this program started is not shown; the
    first of `env` goes first. What is left of the room shows as empty arguments at the end: it could be
    given up only by the privileged, or along with the ends of the heap and all else (prctl(2), PR_SET_MM).
    """
    os.environ.clear()  # nothing points any more to where the new one is written
    os.environ.update(env)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    arguments, end_of_arguments, variables, end_of_variables = map(int, fields[45:49])
    _write(arguments, end_of_arguments, argv)
    _write(variables, end_of_variables, [f"{name}={value}" for name, value in env.items()])


def _write(begin: int, end: int, texts: Sequence[str]) -> None:
    block = b"".join(os.fsencode(text) + b"\0" for text in texts)[: end - begin - 1]
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, block, len(block))


def _thread_number(libc: ctypes.PyDLL) -> int:
    """Where the C library keeps the number of this thread."""
    address = ctypes.c_uint64()
    if libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) != 0 or not address.value:
        raise OSError(errno.ENOSYS, "the kernel does not tell where the thread's number is kept")
    if ctypes.c_int.from_address(address.value).value != os.getpid():
        raise OSError(errno.ENOSYS, "the C library keeps the thread's number somewhere else")
    return address.value
