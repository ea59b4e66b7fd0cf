"""Why a worker ended, worked out from what it left behind. Pure functions.

A reason is one sentence that says what to do and that a client may read: the worker's own words
stay in its log.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterable

from swapper.core.events import Failure

OUT_OF_MEMORY = re.compile(
    r"out of memory|outofmemory|cudaMalloc failed|failed to allocate|unable to allocate"
    r"|cannot allocate memory|std::bad_alloc|\bMemoryError\b|ErrorOutOfDeviceMemory",
    re.IGNORECASE,
)
ADDRESS_IN_USE = re.compile(
    r"address (is )?already in use|address in use|EADDRINUSE|couldn't bind|port \d+ is (already )?in use",
    re.IGNORECASE,
)
HOLD_BACK = "give it less to hold (`context`, `parallel`, `gpu_layers`) or free memory there"


def classify(
    status: int, last_lines: Iterable[str], *, model: str, was_ready: bool, oom_killed: bool
) -> Failure:
    """The failure of a worker that ended by itself.

    `status` is negative for a signal; `oom_killed`: the kernel killed for lack of memory meanwhile.
    """
    text = "\n".join(last_lines)
    if status == -signal.SIGKILL and oom_killed:
        return Failure(
            "out_of_memory",
            f"the kernel killed the worker because the host ran out of memory; {HOLD_BACK}",
        )
    if status and OUT_OF_MEMORY.search(text):
        return Failure("out_of_memory", f"the worker ran out of memory; {HOLD_BACK}")
    if status and not was_ready and ADDRESS_IN_USE.search(text):
        return Failure(
            "port_taken",
            "the worker's port is taken by another program; end that, or let swapper choose with ${port}",
        )
    return Failure("crashed", f"{_how(status)} {_when(was_ready)}; {_what_to_do(status, model)}")


def load_timeout(seconds: float, model: str) -> Failure:
    """It did not become ready in its time."""
    return Failure(
        "load_timeout",
        f"the worker was not ready after {seconds:g} s; raise `load_timeout` if it needs longer, "
        f"or see its log (swapper logs {model})",
    )


def cannot_start(error: OSError) -> Failure:
    """No process could be made for it."""
    if error.errno == errno.E2BIG:
        return Failure(
            "bad_options", "its command line is too long to be started; shorten `cmd` or `env`"
        )
    if error.errno in (errno.ENOMEM, errno.EAGAIN):
        reason = f"no process could be started ({error.strerror}); free memory or raise the process limit"
        return Failure("out_of_memory", reason)
    return Failure("crashed", f"no process could be started: {error.strerror}")


def _how(status: int) -> str:
    if status < 0:
        return f"the worker was ended by signal {-status} ({_signal_name(-status)})"
    return f"the worker exited with status {status}"


def _when(was_ready: bool) -> str:
    return "while it served" if was_ready else "before it was ready"


def _what_to_do(status: int, model: str) -> str:
    log = f"its log says more (swapper logs {model})"
    return log if status else f"it must stay in the foreground (no -d, no &); {log}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
