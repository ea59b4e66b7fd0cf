"""Request bodies: read them within a limit, find the model's name, put another in its place.

Only `model` and `stream` are looked at; everything else is the worker's business and passes unread.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from aiohttp import StreamReader, web

from swapper.errors import BadRequest

DEFAULT_LIMIT: Final = 64 * 1024 * 1024
IDLE_S: Final = 30.0  # between two pieces of a body
SLOWEST: Final = 1024  # bytes a second, after the first `IDLE_S`
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyTooLarge(BadRequest):
    """The body is longer than this server takes."""


class BodyTooSlow(BadRequest):
    """The body does not come in a time that anybody would wait for."""


class Asked(msgspec.Struct):
    """What the proxy wants to know of a body. Of equal keys the last counts, as in most parsers."""

    model: str
    stream: object = False  # anything but true is no stream; whether it is valid the worker says


_asked = msgspec.json.Decoder(Asked)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def asked(body: bytes) -> Asked:
    """What a JSON body asks for; raises BadRequest."""
    try:
        return _asked.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the body needs a `model`, a string: {error}", param="model") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None


def renamed(body: bytes, model: str) -> bytes:
    """The same JSON object with another model's name; every other value byte for byte as it was."""
    try:
        fields = _fields.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """The whole body, decompressed; raises BodyTooLarge as soon as that is known."""
    headers = request.headers
    length = headers.get("content-length")
    if length is not None and length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    if "expect" in headers and request.transport is not None:
        request.transport.write(CONTINUE)
    try:
        return await _read(request.content, limit)
    except TimeoutError:
        raise BodyTooSlow(
            f"the body came too slowly: nothing for {IDLE_S:g} s, or less than {SLOWEST} bytes a second"
        ) from None
    except web.RequestPayloadError:
        raise BadRequest("the body could not be read: its framing or compression is bad") from None


async def _read(content: StreamReader, limit: int) -> bytes:
    first = content.read_nowait()
    _check(len(first), limit)
    if content.at_eof():  # the usual case: it came with the head
        return first
    body = bytearray(first)
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        slowest_ends = began + IDLE_S + len(body) / SLOWEST
        async with asyncio.timeout_at(min(loop.time() + IDLE_S, slowest_ends)):
            chunk = await content.readany()
        if not chunk:
            return bytes(body)
        body += chunk
        _check(len(body), limit)


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than the {limit} bytes this server takes")
