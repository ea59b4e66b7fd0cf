"""From an error to what a client is told: status, stable words, one sentence. No dialect yet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from swapper.errors import (
    BadRequest,
    SwapperError,
    Unauthorized,
    Unavailable,
    UnknownModel,
    WorkerLost,
)
from swapper.front.body import BodyTooLarge, BodyTooSlow


class NotFound(SwapperError):
    """There is no such path."""


class NotHere(SwapperError):
    """Other servers do it, this one does not."""


class Conflict(SwapperError):
    """It cannot be done as things stand, and waiting alone will not change that."""


class Forbidden(SwapperError):
    """Whoever asks may not, whatever it asks for."""


class TooOften(SwapperError):
    """Whoever asks has had its share of requests for now."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WrongMethod(SwapperError):
    """The path is there, for other methods."""

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not for this path; use {' or '.join(allowed)}")
        self.allowed = allowed


class DiedTwice(WorkerLost):
    """Two workers died on the same request before they answered: it may well be the request."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What went wrong, in words every dialect can say its own way."""

    status: int
    message: str
    type: str = "server_error"
    code: str | None = None
    param: str | None = None
    cause: str | None = None  # the failure kind, where a load failed
    retry_after_s: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


def refusal_of(error: Exception) -> Refusal:
    """The refusal for an error. What is not ours is an internal error, and nothing of it is told."""
    match error:
        case (
            BadRequest()
            | UnknownModel()
            | Unauthorized()
            | Forbidden()
            | NotFound()
            | WrongMethod()
            | Conflict()
        ):
            return _fault_of_client(error)
        case Unavailable():
            return _unavailable(error)
        case TooOften(retry_after_s=seconds):
            wait_s = max(1, math.ceil(seconds))
            return Refusal(
                429, str(error), "rate_limit_error", "rate_limit_exceeded", retry_after_s=wait_s
            )
        case DiedTwice():  # SDKs that try again by themselves heed the header
            return Refusal(
                502, str(error), code="worker_lost", headers=(("x-should-retry", "false"),)
            )
        case WorkerLost():
            return Refusal(502, f"{error}; try again", code="worker_lost")
        case NotHere():
            return Refusal(501, str(error), "invalid_request_error", "not_implemented")
        case SwapperError():
            return Refusal(500, str(error), code="internal_error")
        case _:
            return Refusal(500, "swapper failed inside; its log says how", code="internal_error")


def _fault_of_client(error: SwapperError) -> Refusal:
    kind, message = "invalid_request_error", str(error)
    match error:
        case BodyTooLarge():
            return Refusal(413, message, kind, "body_too_large")
        case BodyTooSlow():
            return Refusal(408, message, kind, "body_too_slow")
        case BadRequest(param=param):
            return Refusal(400, message, kind, None, param)
        case UnknownModel():
            return Refusal(404, message, kind, "model_not_found", "model")
        case Unauthorized():
            challenge = (("www-authenticate", "Bearer"),)
            return Refusal(401, message, kind, "invalid_api_key", headers=challenge)
        case Conflict():
            return Refusal(409, message, kind, "conflict")
        case Forbidden():
            return Refusal(403, message, kind, "forbidden")
        case WrongMethod(allowed=allowed):
            allow = (("allow", ", ".join(allowed)),)
            return Refusal(405, message, kind, "method_not_allowed", headers=allow)
        case _:
            return Refusal(404, message, kind, "not_found")


def _unavailable(error: Unavailable) -> Refusal:
    is_full = error.kind == "queue_full"
    return Refusal(
        429 if is_full else 503,
        str(error),
        "rate_limit_error" if is_full else "server_error",
        error.kind,
        cause=error.cause,
        retry_after_s=max(1, math.ceil(error.retry_after_s)),
    )
