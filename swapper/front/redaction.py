"""Credentials, taken out of what is kept of a request for people to look at.

By the names they go by, by the looks of a bearer token, and wherever the caller's own key stands. A
secret that somebody writes into a prompt in words of their own is not known as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

INSTEAD: Final = "[redacted]"
_NAME: Final = (
    r"[\w-]*(?:authorization|api[_-]?key|access[_-]?token|refresh[_-]?token|cookie|password|secret)"
)
_HEADER: Final = re.compile(r"auth|cookie|key|token|secret|password", re.IGNORECASE)
_QUERY: Final = re.compile(r"([?&][^=&]*(?:key|token|secret)[^=&]*=)[^&]*", re.IGNORECASE)
_VALUE: Final = re.compile(
    rf'("{_NAME}"\s*:\s*")(?:[^"\\]|\\.)*'.encode(), re.IGNORECASE | re.DOTALL
)
_NESTED: Final = re.compile(rf'(\\+"{_NAME}\\+"\s*:\s*\\+")[^"\\]*'.encode(), re.IGNORECASE)
_BEARER: Final = re.compile(rb"(Bearer )[\w.~+/=-]{6,}", re.IGNORECASE)


def without_secrets(body: bytes, key: str) -> bytes:
    """A body with what its JSON calls a key or a password left out, and the caller's own key."""
    for pattern in (_VALUE, _NESTED, _BEARER):
        body = pattern.sub(rb"\1" + INSTEAD.encode(), body)
    return body.replace(key.encode("utf-8", "surrogateescape"), INSTEAD.encode()) if key else body


def safe_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Names in small letters; of what may be a credential the name alone."""
    told = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    return [(name, INSTEAD if _HEADER.search(name) else value) for name, value in told]


def safe_target(target: str) -> str:
    """Path and query."""
    return _QUERY.sub(rf"\1{INSTEAD}", target)
