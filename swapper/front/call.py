"""One request on its way through: what is asked, what became of it, and the line that tells of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from swapper.front.answer import CLIENT_LEFT, Answer
from swapper.front.form import Form
from swapper.front.headers import Header, request_id
from swapper.front.keys import Key, holder
from swapper.runtime.lease import Lease

if TYPE_CHECKING:
    from swapper.front.tracing import Begun


@dataclass(slots=True)
class Call:
    """Filled in step by step by the handler that owns it."""

    request: web.BaseRequest
    request_id: str
    key: Key | None  # what it came with, where keys are configured
    route: str  # for logs and metrics
    target: str  # path and query, as the worker gets them
    is_inference: bool = True  # the body names the model, in JSON or in a form
    started: float = field(default_factory=time.perf_counter)
    model: str | None = None  # the configured name, once it is known
    given: bytes = field(default=b"", repr=False)  # the body as it came; never in a log
    body: bytes = field(default=b"", repr=False)  # as it goes on; never in a log
    form: Form | None = field(default=None, repr=False)  # the same body, where it is a form
    lease: Lease | None = None
    answer: Answer | None = None  # once anything was sent
    has_begun: bool = False  # some of the worker's answer was sent
    status: int = CLIENT_LEFT
    first_byte: float | None = None
    error: str | None = None
    number: int | None = None  # among all that have ended, once it has
    new_answer: Callable[..., Answer] = Answer
    trace: Begun | None = None  # where requests are traced

    @classmethod
    def of(cls, request: web.BaseRequest, route: str, target: str | None = None) -> Call:
        """A request as it comes; `target`: what the worker is asked for, if not the same."""
        name = request_id(request.headers.get("x-request-id"))
        return cls(
            request, name, holder(request), route, target_of(request) if target is None else target
        )

    @property
    def key_name(self) -> str:
        """Who asks; empty on an open server."""
        return self.key.name if self.key is not None else ""

    def tell(self, log: structlog.typing.FilteringBoundLogger, now: float) -> None:
        """The one line of this request, which ended `now` on the clock of `started`."""
        lease = self.lease
        log.info(
            "request",
            request_id=self.request_id,
            model=self.model,
            route=self.route,
            status=self.status,
            worker=lease and lease.worker_id,
            key=self.key_name or None,
            queue_ms=lease and _ms(lease.queue_s),
            load_ms=lease and _ms(lease.load_s),
            first_byte_ms=self.first_byte and _ms(self.first_byte - self.started),
            total_ms=_ms(now - self.started),
            bytes_in=len(self.body),
            bytes_out=self.answer.num_bytes if self.answer is not None else 0,
            error=self.error,
        )


def target_of(request: web.BaseRequest) -> str:
    """Path and query, as they came."""
    target = request.raw_path
    return target if target.startswith("/") else str(request.rel_url)  # as proxies are asked


def swapper_headers(call: Call) -> list[Header]:
    """What swapper says of an answer, as far as it is known by now."""
    headers = [(b"x-request-id", call.request_id.encode())]
    if call.model is not None:
        headers.append((b"x-swapper-model", call.model.encode()))
    lease = call.lease
    if lease is not None:
        headers.append((b"x-swapper-engine", lease.engine.encode()))
        headers.append((b"x-swapper-queue-ms", b"%.1f" % (lease.queue_s * 1000)))
        headers.append((b"x-swapper-load-ms", b"%.1f" % (lease.load_s * 1000)))
        headers.append((b"x-swapper-swap-ms", b"%.1f" % (lease.swap_s * 1000)))
    return headers


def timings(call: Call) -> dict[str, float]:
    """What of the answer's time was not the model's, in milliseconds."""
    lease = call.lease
    if lease is None:
        return {}
    spans = {"queue_ms": lease.queue_s, "load_ms": lease.load_s, "swap_ms": lease.swap_s}
    return {name: _ms(seconds) for name, seconds in spans.items()}


def timings_comment(call: Call) -> bytes:
    """The same for a stream whose head was sent before they were known: a comment in the stream."""
    pairs = b" ".join(b"%b=%b" % header for header in swapper_headers(call)[1:])
    return b": " + pairs + b"\n\n"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
