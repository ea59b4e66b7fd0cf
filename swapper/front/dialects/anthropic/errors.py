"""Anthropic's envelope for errors."""

from __future__ import annotations

from typing import Final

from swapper.front.dialects.dialect import Json
from swapper.front.dialects.reading import OVERFLOW, overflow_counts
from swapper.front.refusal import Refusal

TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_of(refusal: Refusal, request_id: str) -> Json:
    """The envelope, for an answer of its own and for the last event of a stream alike."""
    usual = "api_error" if refusal.status >= 500 else "invalid_request_error"
    error = {"type": TYPES.get(refusal.status, usual), "message": _message(refusal)}
    return {"type": "error", "error": error, "request_id": request_id}


def _message(refusal: Refusal) -> str:
    counts = overflow_counts(refusal.message) if refusal.code == OVERFLOW else None
    if counts is not None:  # clients read both numbers out of it
        return f"prompt is too long: {counts[0]} tokens > {counts[1]} maximum"
    return refusal.message
