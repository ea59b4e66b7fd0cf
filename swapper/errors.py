"""Every way a request or a command can be refused, split by whose fault it is.

`kind` is a stable word (metrics, OpenAI's `code`), the text one sentence that says what to do. The
front translates into the client's dialect, once; nothing else knows of HTTP statuses.
"""

from __future__ import annotations

from typing import Literal

RefusalKind = Literal[
    "queue_full",  # more wait for this model than its queue takes
    "timeout",  # waited until the deadline
    "load_failed",  # the model's worker could not be started
    "too_large",  # would not fit if it had the machine to itself
    "unloaded",  # somebody unloaded the model while the request waited
    "shutting_down",
]


class SwapperError(Exception):
    """Base of all errors whose text is meant for a person."""


class ConfigError(SwapperError):
    """A configuration that cannot be used. The text names file, line and key."""


class BadRequest(SwapperError):
    """The client's fault. `param` names the offending field where there is one."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownModel(SwapperError):
    """The request names a model that is not configured; `nearest` is a near miss, if any."""

    def __init__(self, name: str, nearest: str | None = None) -> None:
        hint = f"; did you mean '{nearest}'?" if nearest else "; GET /v1/models lists them"
        super().__init__(f"model '{name}' is not configured{hint}")
        self.name = name
        self.nearest = nearest


class Unauthorized(SwapperError):
    """No API key, or a wrong one."""


class Unavailable(SwapperError):
    """The request was refused before a worker took it; trying again later makes sense.

    `kind` says why, `cause` is the failure kind of the worker contract where a load failed.
    """

    def __init__(
        self, kind: RefusalKind, message: str, *, retry_after_s: float, cause: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.cause = cause


class WorkerLost(SwapperError):
    """The worker broke off the request: it died, or its connection failed."""
