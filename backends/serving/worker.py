"""The main of every worker: load, report, serve, drain, end.

The load starts first, on a thread of its own, and the HTTP half is imported beside it: a model that
loads in a fraction of a second must not wait for imports. So this module itself imports only what is
needed before that.

Exit codes: 0, ended as asked (TERM, or standard input closed); 1, could not serve, and the report says
why; 2, the command line or the options were wrong.
"""

from __future__ import annotations

import gc
import json
import os
import stat
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backends.serving.engine import Engine, EngineError
from backends.serving.report import Report

if TYPE_CHECKING:
    import socket

Load = Callable[[dict[str, Any], Callable[[float], None]], Engine]

OK, FAILED, MISUSED = 0, 1, 2

_USAGE = "usage: python -m backends.NAME --listen unix:PATH|tcp:HOST:PORT --options FILE"


def run(load: Load) -> int:
    """Serve what `load(options, progress)` gives, until told to end. The exit code comes back."""
    gc.disable()  # until ready: a collection in the middle of imports and load finds nothing
    report = Report.from_environment()
    try:
        listen, options = _arguments(sys.argv[1:])
    except EngineError as error:
        return _fail(report, error)
    loading = Loading(load, options, report)
    _end_with_stdin(listen)
    try:
        return _serve(listen, loading, report)
    except EngineError as error:
        code = _fail(report, error)
        if loading.is_running:  # the interpreter must not be taken down under a thread in C code
            leave(listen, code)
        return code


def _fail(report: Report, error: EngineError) -> int:
    report.failed(error.kind, error.reason)
    print(error.reason, file=sys.stderr, flush=True)
    return MISUSED if error.kind == "bad_options" else FAILED


# -- command line ----------------------------------------------------------------------------------


def _arguments(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """Where to listen, and the model's options."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if len(arguments) != 4 or set(given) != {"--listen", "--options"}:
        raise EngineError("bad_options", _USAGE)
    if not given["--listen"].startswith(("unix:", "tcp:")):
        raise EngineError("bad_options", f"--listen {given['--listen']} is no address. {_USAGE}")
    return given["--listen"], _options(given["--options"])


def _options(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            options = json.load(file)
    except OSError as error:
        raise EngineError(
            "bad_options", f"The options file cannot be read: {error.strerror}."
        ) from None
    except ValueError as error:
        raise EngineError("bad_options", f"The options file is not valid JSON: {error}.") from None
    if not isinstance(options, dict):
        raise EngineError("bad_options", "The options file must hold one JSON object.")
    return options


# -- loading ---------------------------------------------------------------------------------------


class Loading:
    """A load on a thread of its own, begun at once. It cannot be cancelled, only left behind."""

    def __init__(self, load: Load, options: dict[str, Any], report: Report) -> None:
        self._result: Engine | EngineError | None = None
        self._load = load
        self._options = options
        self._report = report
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._report.loading(0.0)
        try:
            self._result = self._load(self._options, self._report.loading)
        except EngineError as error:
            self._result = error
        except MemoryError:
            self._result = EngineError("out_of_memory", "There is not enough memory for the model.")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must reach the report
            sys.excepthook(type(error), error, error.__traceback__)
            reason = f"The worker failed while loading ({type(error).__name__}); its log says why."
            self._result = EngineError("crashed", reason)

    @property
    def is_running(self) -> bool:
        """Whether the load is still at it."""
        return self._thread.is_alive()

    def wait(self) -> Engine:
        """Block until the load has ended; the engine, or why there is none."""
        self._thread.join()
        if isinstance(self._result, EngineError):
            raise self._result
        assert self._result is not None
        return self._result


# -- ends ------------------------------------------------------------------------------------------


def leave(listen: str, code: int) -> None:
    """End the process at once, whatever other threads are doing, and wait for nothing: not even
    for the log, whose reader may be gone."""
    remove_socket(listen)
    os._exit(code)


def remove_socket(listen: str) -> None:
    """Take away the file of a Unix socket."""
    if listen.startswith("unix:"):
        try:
            os.unlink(listen.removeprefix("unix:"))
        except OSError:
            pass


def _end_with_stdin(listen: str) -> None:
    """swapper holds the other end of standard input: when it closes, swapper is gone.

    By hand, standard input is a terminal, a file or nothing, and says nothing about anybody.
    """
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return

    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        leave(listen, OK)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


# -- serving ---------------------------------------------------------------------------------------


def _serve(listen: str, loading: Loading, report: Report) -> int:
    """Everything behind the load, imported while the load runs."""
    import signal

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave(listen, OK))
    sock = _bind(listen)

    from backends.serving.lifecycle import serve

    try:
        return serve(listen, sock, loading, report)
    finally:
        remove_socket(listen)


def _bind(listen: str) -> socket.socket:
    """A bound socket that does not listen yet: nobody can connect before the model is there."""
    from backends.serving.listening import bind

    return bind(listen)
