"""Spans of requests, sent to an OpenTelemetry receiver.

Imported only where the environment asks for it, as it needs the extra `otel`. A request's span
is begun when its worker is asked, which is to be its child, and told in full once it is over, out of what
metrics are made of too. What a request or an answer says is in none of them, nor is a key.

Attributes: OpenTelemetry's semantic conventions for HTTP and for generative AI, the latter in development.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from swapper import __version__
from swapper.front.call import Call
from swapper.front.headers import Header
from swapper.runtime.lease import Lease

log = structlog.get_logger("swapper.tracing")

CLOSING_S: Final = 3.0  # for what is not sent yet, at the end
COMPLAINS_EVERY_S: Final = 60.0  # a receiver that is away is tried again many times
NOT_OURS: Final = range(
    400, 500
)  # a client's mistakes are no errors of a server, nor is that it left
OPERATIONS: Final = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/api/chat": "chat",
    "/v1/completions": "text_completion",
    "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}


class Begun(NamedTuple):
    """A request's span, and what makes nanoseconds since 1970 of this process's two clocks' seconds."""

    span: Span
    context: Context  # of its children
    epoch_ns: int  # of `time.perf_counter`
    dispatcher_ahead_s: float  # how much later the dispatcher's clock is

    def at(self, seconds: float) -> int:
        """When that was, in nanoseconds since 1970; `seconds` on the clock of `Call.started`."""
        return self.epoch_ns + int(seconds * 1e9)


class Tracing:
    """Makes spans and sends them, in a thread of its own. `clock` is the dispatcher's.

    Where to, how many and under which name: the OTEL_* variables of OpenTelemetry's specification.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        theirs = logging.getLogger("opentelemetry")
        theirs.addHandler(Complaints())
        theirs.propagate = False
        self._exporter = OTLPSpanExporter()
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("swapper", __version__)

    def for_worker(self, call: Call, headers: list[Header]) -> list[Header]:
        """The headers with the request's span as parent of what the worker does."""
        told: dict[str, str] = {}
        propagate.inject(told, self._begun(call).context)
        names = {name.encode() for name in told}
        kept = [header for header in headers if header[0].lower() not in names]
        return [*kept, *((name.encode(), value.encode()) for name, value in told.items())]

    def ended(self, call: Call, now: float) -> None:
        """The request is over; `now` on the clock of `call.started`."""
        begun = self._begun(call)
        span = begun.span
        if span.is_recording():
            _describe(span, call)
            if call.lease is not None:
                self._tell_parts(begun, call, call.lease, now)
        span.end(begun.at(now))

    async def close(self) -> None:
        """Send what is not sent yet, for a moment."""
        give_up = threading.Timer(CLOSING_S, self._exporter.shutdown)
        give_up.start()
        await asyncio.to_thread(self._provider.shutdown)
        give_up.cancel()

    def _begun(self, call: Call) -> Begun:
        if call.trace is None:
            now = time.perf_counter()
            epoch_ns = time.time_ns() - int(now * 1e9)
            operation = OPERATIONS.get(call.route, call.request.method)
            span = self._tracer.start_span(
                f"{operation} {call.model or call.route}",
                propagate.extract(call.request.headers),
                SpanKind.SERVER,
                start_time=epoch_ns + int(call.started * 1e9),
            )
            context = set_span_in_context(span, Context())
            call.trace = Begun(span, context, epoch_ns, self._clock() - now)
        return call.trace

    def _tell_parts(self, begun: Begun, call: Call, lease: Lease, now: float) -> None:
        """What the request's time was spent on; the clocks may differ by a millisecond."""
        first = call.first_byte if call.first_byte is not None else now
        arrived = max(call.started, lease.arrived_at - begun.dispatcher_ahead_s)
        granted = min(arrived + lease.queue_s, first)
        waiting = self._part(begun, begun.context, "wait", min(arrived, granted), granted)
        loading_from = max(granted - lease.load_s, arrived)
        if lease.swap_s:
            swapping_from = max(loading_from - lease.swap_s, arrived)
            self._part(begun, waiting, "swap", swapping_from, loading_from)
        if lease.load_s:
            self._part(begun, waiting, "load", loading_from, granted)
        self._part(begun, begun.context, "first_token", granted, first)
        if call.first_byte is not None:
            self._part(begun, begun.context, "stream", first, now)

    def _part(
        self, begun: Begun, parent: Context, name: str, since: float, until: float
    ) -> Context:
        """One child, told after the event; what its own children are told in."""
        span = self._tracer.start_span(name, parent, start_time=begun.at(since))
        span.end(begun.at(until))
        return set_span_in_context(span, Context())


class Complaints(logging.Handler):
    """What OpenTelemetry has to complain of, in our log and not all of it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told_at = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        if record.created - self._told_at >= COMPLAINS_EVERY_S:
            self._told_at = record.created
            log.warning("trouble with traces", reason=record.getMessage())


def _describe(span: Span, call: Call) -> None:
    lease, first = call.lease, call.first_byte
    told: dict[str, str | float | None] = {
        "gen_ai.operation.name": OPERATIONS.get(call.route),
        "gen_ai.provider.name": "swapper",
        "gen_ai.request.model": call.model,
        "gen_ai.response.time_to_first_chunk": None if first is None else first - call.started,
        "http.request.method": call.request.method,
        "http.route": call.route,
        "http.response.status_code": call.status,
        "error.type": call.error,
        "swapper.request_id": call.request_id,
        "swapper.key": call.key_name or None,
        "swapper.engine": None if lease is None else lease.engine,
        "swapper.worker": None if lease is None else lease.worker_id,
    }
    span.set_attributes({name: value for name, value in told.items() if value is not None})
    if call.error is not None and call.status not in NOT_OURS and call.error != "client_left":
        span.set_status(Status(StatusCode.ERROR, call.error))


def _resource() -> Resource:
    """What the environment says of this service; it is called swapper where nothing is said."""
    found = Resource.create()
    name = str(found.attributes.get(SERVICE_NAME, ""))
    ours = {SERVICE_VERSION: __version__}
    if name.startswith("unknown_service"):
        ours[SERVICE_NAME] = "swapper"
    return found.merge(Resource(ours))
