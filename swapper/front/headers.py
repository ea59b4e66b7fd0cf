"""Which headers go on, and which end here.

Names are compared in lower case, values are never changed. Raw pairs of bytes, as the parsers give them.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

Header: TypeAlias = tuple[bytes, bytes]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# The client's keys are for swapper, not for workers; the body goes on decoded and at its own length.
ENDS_HERE: Final = HOP_BY_HOP | {
    b"authorization",
    b"x-api-key",
    b"host",
    b"expect",
    b"content-length",
    b"content-encoding",
    b"x-request-id",
    b"x-swapper-key-id",
}
# Said by swapper itself.
SAID_HERE: Final = HOP_BY_HOP | {
    b"access-control-allow-origin",
    b"access-control-expose-headers",
    b"content-length",
    b"x-request-id",
    b"x-swapper-model",
    b"x-swapper-engine",
    b"x-swapper-queue-ms",
    b"x-swapper-load-ms",
    b"x-swapper-swap-ms",
}

TRACE_CONTEXT: Final = frozenset({b"traceparent", b"tracestate", b"baggage"})
_PLAIN_CONNECTION = frozenset({"keep-alive", "close"})
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_run = os.urandom(6).hex()
_count = itertools.count(1)


def request_headers(raw: Iterable[Header], connection: str, own: Mapping[str, str]) -> list[Header]:
    """A client's headers as they go to the worker.

    `connection` is the client's Connection header: what it names ends here too. `own` replaces
    headers of the same name.
    """
    drop = ENDS_HERE
    if connection and connection.lower() not in _PLAIN_CONNECTION:
        drop = drop | {name.strip().encode() for name in connection.lower().split(",")}
    if own:
        drop = drop | {name.lower().encode() for name in own}
    kept = [header for header in raw if header[0].lower() not in drop]
    if own:
        kept += [(name.encode(), value.encode()) for name, value in own.items()]
    return kept


def trace_context(raw: Iterable[Header]) -> list[Header]:
    """Those that say what trace a request belongs to (W3C Trace Context)."""
    return [header for header in raw if header[0].lower() in TRACE_CONTEXT]


def response_headers(raw: Iterable[Header]) -> list[Header]:
    """A worker's headers as they go to the client; the length is said anew."""
    return [header for header in raw if header[0].lower() not in SAID_HERE]


def request_id(given: str | None) -> str:
    """The client's own id where it is printable and short, else one that is unique to this run."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"{_run}-{next(_count):x}"
