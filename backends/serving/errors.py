"""Errors that a client reads: OpenAI's envelope, a true status, one sentence that says what to do."""

from __future__ import annotations

import msgspec

from backends.serving.engine import EngineError


class RequestError(Exception):
    """A request that is refused, with all that its answer says."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code

    def body(self) -> bytes:
        """The envelope, as JSON."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )

    def headers(self) -> dict[str, str]:
        """Headers beside the envelope: when to try again, where that helps."""
        return {"Retry-After": "1"} if self.status == 503 else {}

    def event(self) -> bytes:
        """The last event of a stream that fails; no [DONE] follows it."""
        return b"data: " + self.body() + b"\n\n"


def bad_request(message: str, param: str | None = None) -> RequestError:
    """The client sent something that cannot be served."""
    return RequestError(400, message, param=param)


def context_exceeded(context: int, num_tokens: int, param: str) -> RequestError:
    """A prompt that does not fit. The wording is what clients search for, so it does not change."""
    return RequestError(
        400,
        f"This model's maximum context length is {context} tokens. However, your {param} "
        f"resulted in {num_tokens} tokens. Please reduce the length of the {param}.",
        param=param,
        code="context_length_exceeded",
    )


def no_such_ability(ability: str, model: str) -> RequestError:
    """The route exists, but not for this model."""
    return RequestError(404, f"The model {model} has no {ability}.", code="unsupported")


def unavailable(message: str) -> RequestError:
    """Nothing is wrong with the request: it can be sent again."""
    return RequestError(503, message, type="server_error", code="unavailable")


def internal() -> RequestError:
    """What no client is told: the log has the rest."""
    return RequestError(
        500, "The worker failed on this request; its log says why.", type="server_error"
    )


def from_engine(error: EngineError) -> RequestError:
    """What the engine raised, as an answer."""
    if error.kind in ("bad_request", "unsupported"):
        return bad_request(error.reason)
    if error.kind == "context_length_exceeded":
        return RequestError(400, error.reason, code="context_length_exceeded")
    if error.kind == "unavailable":
        return unavailable(error.reason)
    return RequestError(500, error.reason, type="server_error", code=error.kind)
