"""OpenAI's dialect: the error envelope, events of a stream, the list of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from swapper.front.refusal import Refusal

HEARTBEAT: Final = b": waiting\n\n"  # a comment: clients skip it


def json_response(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer with a JSON body."""
    response = web.Response(
        body=msgspec.json.encode(content), status=status, content_type="application/json"
    )
    if headers:
        response.headers.update(headers)
    return response


def envelope(refusal: Refusal) -> dict[str, object]:
    """The error object every OpenAI client knows; `cause` is ours, and only there when known."""
    error: dict[str, object] = {
        "message": refusal.message,
        "type": refusal.type,
        "param": refusal.param,
        "code": refusal.code,
    }
    if refusal.cause is not None:
        error["cause"] = refusal.cause
    return {"error": error}


def error_response(refusal: Refusal, request_id: str) -> web.Response:
    """A refusal as an answer of its own."""
    headers = {"x-request-id": request_id, **dict(refusal.headers)}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(refusal.retry_after_s)
    return json_response(envelope(refusal), refusal.status, headers)


def error_event(refusal: Refusal) -> bytes:
    """A refusal as the last event of a stream that has begun. No [DONE] may follow."""
    return b"data: " + msgspec.json.encode(envelope(refusal)) + b"\n\n"
