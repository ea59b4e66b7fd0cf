"""A process that has an engine's modules imported, and forks workers that need not import them.

    python -m backends.serving.parent backends.NAME [patiently] [...]

`backends.NAME.__main__` has `prepare()`, which sets what libraries read when they are opened,
`import_all()`, and `main()`, which is the worker. Standard input is a Unix socket for packets, and
when it closes, this process ends. A packet is one JSON object:

- to us: `{"argv": [...], "env": {...}}`, with three descriptors: the worker's standard input, its log
  (standard output and error) and its report. `argv` is the command line that would have started it.
- from us, `{}` when all is imported; then one for each, in order: `{"pid": N}`, or `{"error": "..."}`.
  An error that comes before anything was asked says why this process ends.

What a worker shows as its command line has the length of ours at most, so more arguments may follow, which
mean nothing.

`patiently`: the imports take what time others leave on the processors, so as not to slow down the first
worker, which answers already.

A worker is the child of whoever started this process, not ours (see `sibling`); it lives on when we
end. It is in a session of its own before its number is told. Imports must start no thread and touch no
GPU: neither would survive the fork. The first is checked at each one.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
from typing import Any

from backends.serving.sibling import die_with, fork_sibling, show_as

PACKET_BYTES = 1 << 20
DESCRIPTORS = 3


def main(name: str, *, is_patient: bool = False) -> int:
    """Serve forks until standard input closes. In a worker, its exit code comes back."""
    policy = os.sched_getscheduler(0)
    if is_patient:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    starter = os.getppid()
    control = socket.socket(fileno=0)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's library starts them when it is opened
    gc.disable()  # it would write to pages that workers share
    try:
        engine = importlib.import_module(f"{name}.__main__")
        engine.prepare()
        engine.import_all()
    except Exception as error:  # noqa: BLE001 - whatever it is, workers are then started without us
        _tell(control, {"error": f"{type(error).__name__}: {error}"})
        return 1
    gc.freeze()
    os.sched_setscheduler(0, policy, os.sched_param(0))
    _tell(control, {})
    while asked := _asked(control):
        if _fork(control, starter, *asked):
            code: int = engine.main()
            return code
    return 0


def _asked(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request with its descriptors; None when nobody is there to ask."""
    packet, descriptors, _, _ = socket.recv_fds(control, PACKET_BYTES, DESCRIPTORS)
    return (json.loads(packet), descriptors) if packet else None


def _fork(
    control: socket.socket, starter: int, request: dict[str, Any], descriptors: list[int]
) -> bool:
    """Whether we are the worker now."""
    begun, begins = os.pipe()
    try:
        pid = fork_sibling()
    except OSError as error:
        _close(begun, begins, *descriptors)
        _tell(control, {"error": str(error)})
        return False
    if pid == 0:
        control.detach()
        os.close(begun)
        _become(request, descriptors, starter)
        os.close(begins)
        return True
    _close(begins, *descriptors)
    os.read(begun, 1)  # ends when the worker has closed its side
    os.close(begun)
    _tell(control, {"pid": pid})
    return False


def _become(request: dict[str, Any], descriptors: list[int], starter: int) -> None:
    """Be the process that `argv` would have been."""
    os.setsid()
    die_with(starter, signal.SIGKILL)
    stdin, log, report = descriptors
    for descriptor, number in ((stdin, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, number)
    os.close(stdin)
    os.close(log)
    argv = request["argv"]
    show_as(argv, {**request["env"], "SWAPPER_REPORT_FD": str(report)})
    sys.argv = argv[argv.index("-m") + 1 :]


def _tell(control: socket.socket, answer: dict[str, Any]) -> None:
    try:
        control.send(json.dumps(answer).encode())
    except OSError:
        pass  # nobody is there; the next request will say so


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], is_patient="patiently" in sys.argv[2:]))
