"""Traces: what a real receiver of OTLP gets, and what workers are told of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.system.conftest import PATIENCE_S, Swapper, eventually

Serve = Callable[..., Swapper]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
NOBODY = "http://127.0.0.1:1"
SECRET = "the-words-of-the-prompt"
ANSWER = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"yes"}}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
ASKED = {
    "/v1/chat/completions": {},
    "/v1/messages": {"max_tokens": 5},
    "/upstream/far/v1/chat/completions": {},
}


class Receiver(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP; whatever else is asked of it, it answers as a model would."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.raw = b""
        self.spans: dict[str, Span] = {}  # by name
        self.services: list[dict[str, str]] = []
        self.asked: list[dict[str, str]] = []  # headers of what models were asked

    def take(self, body: bytes) -> bytes:
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = resource.resource.attributes
            self.services.append({a.key: a.value.string_value for a in attributes})
            for scope in resource.scope_spans:
                self.spans |= {span.name: span for span in scope.spans}
        return ExportTraceServiceResponse().SerializeToString()

    def span(self, name: str) -> Span:
        """Once it has come."""
        found = eventually(lambda: self.spans.get(name))
        assert isinstance(found, Span)
        return found


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        kind = "application/json"
        if self.path == "/v1/traces":
            kind = "application/x-protobuf"
            answer = self.server.take(body)
        else:
            self.server.asked.append({k.lower(): v for k, v in self.headers.items()})
            answer = ANSWER
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, daemon=True)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


def config(receiver: Receiver) -> str:
    parrot = "{engine: echo, options: {load_s: 0.2}}"
    far, gone = f"{{engine: url, url: '{receiver.url}'}}", f"{{engine: url, url: '{NOBODY}'}}"
    return f"models:\n  parrot: {parrot}\n  far: {far}\n  gone: {gone}\n"


def traced(serve: Serve, receiver: Receiver, **env: str) -> Swapper:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "50", **env}
    return serve(config(receiver), **env)


def ask(swapper: Swapper, path: str, model: str, **fields: object) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": SECRET}], **fields}
    return httpx.post(swapper.url + path, json=body, headers=CONTEXT, timeout=PATIENCE_S)


def attributes(span: Span) -> dict[str, object]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


@pytest.mark.parametrize("path", ASKED)
def test_a_trace_goes_on_to_the_worker_without_any_tracing(
    serve: Serve, receiver: Receiver, path: str
) -> None:
    swapper = serve(config(receiver))
    assert ask(swapper, path, "far", **ASKED[path]).status_code == 200
    assert receiver.asked[0] | CONTEXT == receiver.asked[0]


@pytest.mark.parametrize("path", ASKED)
def test_the_worker_is_a_child_of_the_request(serve: Serve, receiver: Receiver, path: str) -> None:
    swapper = traced(serve, receiver)
    assert ask(swapper, path, "far", **ASKED[path]).status_code == 200
    span = receiver.span("POST far" if path.startswith("/upstream") else "chat far")
    assert receiver.asked[0]["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert receiver.asked[0]["tracestate"] == "vendor=1"
    assert span.parent_span_id.hex() == PARENT


def test_a_request_is_told_in_parts(serve: Serve, receiver: Receiver) -> None:
    swapper = traced(serve, receiver)
    got = ask(swapper, "/v1/chat/completions", "parrot", stream=True)
    assert got.status_code == 200
    span = receiver.span("chat parrot")
    wait, load = receiver.span("wait"), receiver.span("load")
    first, stream = receiver.span("first_token"), receiver.span("stream")
    assert {s.trace_id.hex() for s in (span, wait, load, first, stream)} == {TRACE}
    assert {s.parent_span_id for s in (wait, first, stream)} == {span.span_id}
    assert load.parent_span_id == wait.span_id
    assert load.end_time_unix_nano - load.start_time_unix_nano > 0.2e9
    times = [
        *(span.start_time_unix_nano, wait.start_time_unix_nano, load.start_time_unix_nano),
        *(load.end_time_unix_nano, first.start_time_unix_nano, stream.start_time_unix_nano),
        *(stream.end_time_unix_nano, span.end_time_unix_nano),
    ]
    assert times == sorted(times)
    told = attributes(span)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "parrot"
    assert told["http.response.status_code"] == 200
    assert told["swapper.engine"] == "echo"
    assert told["swapper.request_id"] == got.headers["x-request-id"]
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert receiver.services[0]["service.name"] == "swapper"
    assert SECRET.encode() not in receiver.raw


def test_what_goes_wrong_is_told(serve: Serve, receiver: Receiver) -> None:
    swapper = traced(serve, receiver, OTEL_SERVICE_NAME="box")
    assert ask(swapper, "/v1/chat/completions", "nobody").status_code == 404
    assert ask(swapper, "/v1/chat/completions", "gone").status_code == 502
    unknown = receiver.span("chat /v1/chat/completions")
    assert attributes(unknown)["http.response.status_code"] == 404
    assert unknown.status.code == Status.STATUS_CODE_UNSET
    gone = receiver.span("chat gone")
    assert gone.status.code == Status.STATUS_CODE_ERROR
    assert attributes(gone)["error.type"] == gone.status.message
    assert receiver.services[0]["service.name"] == "box"


def test_it_ends_where_nobody_receives(serve: Serve, receiver: Receiver) -> None:
    swapper = traced(serve, receiver, OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY)
    assert ask(swapper, "/v1/chat/completions", "far").status_code == 200
    eventually(lambda: "Connection refused" in swapper.output())
    assert ask(swapper, "/v1/chat/completions", "far").status_code == 200
    assert swapper.stop() == 0
    events = [json.loads(line)["event"] for line in swapper.output().splitlines()]
    assert events.count("trouble with traces") == 1


def test_what_is_not_sent_yet_is_sent_at_the_end(serve: Serve, receiver: Receiver) -> None:
    swapper = traced(serve, receiver, OTEL_BSP_SCHEDULE_DELAY="3600000")
    assert ask(swapper, "/v1/chat/completions", "parrot").status_code == 200
    assert swapper.stop() == 0
    assert "chat parrot" in receiver.spans


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_it_can_be_switched_off(serve: Serve, receiver: Receiver, off: dict[str, str]) -> None:
    swapper = traced(serve, receiver, **off)
    assert ask(swapper, "/v1/chat/completions", "far").status_code == 200
    assert swapper.stop() == 0
    assert receiver.spans == {}
    assert receiver.asked[0]["traceparent"] == CONTEXT["traceparent"]


def test_without_the_packages_it_serves_and_says_so(
    serve: Serve, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not here')")
    swapper = traced(serve, receiver, PYTHONPATH=str(tmp_path))
    assert ask(swapper, "/v1/chat/completions", "far").status_code == 200
    assert "pip install 'llm-swapper[otel]'" in swapper.output()
