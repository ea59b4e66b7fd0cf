"""`GET /openapi.json`: all routes, as OpenAPI 3.1.

Bodies that swapper reads itself are described by the very types that read them; those of OpenAI's routes,
which go to the workers unread, by types of this module: the fields that the engines here know. Any more
fields may be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal

import msgspec

from swapper import __version__
from swapper.front.dialects.anthropic.request import MessagesRequest
from swapper.front.dialects.ollama.request import (
    ChatRequest,
    EmbeddingsRequest,
    EmbedRequest,
    GenerateRequest,
)
from swapper.front.dialects.responses.request import ResponsesRequest
from swapper.front.leases import PATHS as LEASES
from swapper.front.leases import Wanted
from swapper.front.ollama import BLOBS, INSTEAD, ShowRequest

Json = dict[str, Any]

JSON: Final = "application/json"
TEXT: Final = "text/plain"
EVENTS: Final = "text/event-stream"
LINES: Final = "application/x-ndjson"
REF: Final = "#/components/schemas/"


class ChatMessage(msgspec.Struct, kw_only=True):
    """One message of a chat. `content` of a list is made of parts, `{"type": "text", "text"}` say."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Json] | None = None
    reasoning_content: str | None = None
    tool_calls: list[Json] | None = None
    tool_call_id: str | None = None


class Generation(msgspec.Struct, kw_only=True):
    """What chats and completions share."""

    model: str
    stream: bool | None = None
    stream_options: Json | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    seed: int | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_k: int | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    repetition_penalty: float | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    response_format: Json | None = None


class ChatCompletion(Generation, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)]
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: Json | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


class Completion(Generation, kw_only=True):
    """`POST /v1/completions`. A prompt is text, several texts, token ids, or several lists of them."""

    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None


class Embedding(msgspec.Struct, kw_only=True):
    """`POST /v1/embeddings`."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    truncate_prompt_tokens: int | None = None


class CountRequest(msgspec.Struct, kw_only=True):
    """`POST /v1/messages/count_tokens`: a request for a message, of which the prompt is looked at."""

    model: str
    messages: list[Json]
    system: str | list[Json] | None = None
    tools: list[Json] | None = None
    tool_choice: Json | None = None
    thinking: Json | None = None


class Other(msgspec.Struct, kw_only=True):
    """Any other request; beside `model` it is as the model's own server wants it."""

    model: str


class Rerank(msgspec.Struct, kw_only=True):
    """`POST /v1/rerank`, for models that rank."""

    model: str
    query: str
    documents: list[Any]
    top_n: int | None = None
    return_documents: bool | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `body` is a type of the components, or a schema of a form."""

    summary: str
    body: type | Json | None = None
    error: str = "Error"  # in whose envelope
    loads: bool = False  # asks a model: waits for a worker, and may fail as it does
    answers: Mapping[int, tuple[str, ...]] | None = None  # media types by status
    errors: tuple[int, ...] = ()
    query: tuple[str, ...] = ()


OK: Final = {200: (JSON,)}
OK_TEXT: Final = {200: (TEXT,)}
STREAMS: Final = {200: (JSON, EVENTS)}
OLLAMA_STREAMS: Final = {200: (JSON, LINES)}
ANY: Final = {200: ("*/*",)}
FORM: Json = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
        "stream": {"type": "boolean"},
    },
    "required": ["model", "file"],
}


def _asks(summary: str, body: type | Json, answers: Any = STREAMS, error: str = "Error") -> Route:
    return Route(summary, body, error, loads=True, answers=answers)


ROUTES: Final[Mapping[str, Mapping[str, Route]]] = {
    "/v1/chat/completions": {"post": _asks("A chat (OpenAI)", ChatCompletion)},
    "/v1/completions": {"post": _asks("A text gone on with (OpenAI)", Completion)},
    "/v1/embeddings": {"post": _asks("Vectors of texts (OpenAI)", Embedding, OK)},
    "/v1/responses": {"post": _asks("A response (OpenAI)", ResponsesRequest)},
    "/v1/responses/{response_id}": {
        "get": Route("A response that was kept", errors=(404,)),
        "delete": Route("Forget a response", errors=(404,)),
    },
    "/v1/responses/{response_id}/input_items": {
        "get": Route(
            "What it was asked with", errors=(404,), query=("order", "limit", "after", "include")
        )
    },
    "/v1/responses/{response_id}/cancel": {
        "post": Route("Refused: no response is made in the background", answers={}, errors=(404,))
    },
    "/v1/responses/input_tokens": {
        "post": Route(
            "How many tokens an input has", ResponsesRequest, loads=True, answers=OK, errors=(501,)
        )
    },
    "/v1/rerank": {"post": _asks("Texts by how they fit a question", Rerank, ANY)},
    "/v1/audio/transcriptions": {"post": _asks("Sound as text; `command` and `url` models", FORM, ANY)},
    "/v1/images/edits": {"post": _asks("Pictures changed; `command` and `url` models", FORM, ANY)},
    "/v1/{path}": {"post": _asks("Anything else; `command` and `url` models", Other, ANY)},
    "/v1/models": {"get": Route("All models")},
    "/v1/models/{model}": {"get": Route("One model", errors=(404,))},
    "/v1/messages": {"post": _asks("A message (Anthropic)", MessagesRequest, STREAMS, "AnthropicError")},
    "/v1/messages/count_tokens": {
        "post": Route(
            "How many tokens a prompt has", CountRequest, "AnthropicError", True, OK, (501,)
        )
    },
    "/api/chat": {"post": _asks("A chat (Ollama)", ChatRequest, OLLAMA_STREAMS, "OllamaError")},
    "/api/generate": {
        "post": _asks("A text (Ollama)", GenerateRequest, OLLAMA_STREAMS, "OllamaError")
    },
    "/api/embed": {"post": _asks("Vectors (Ollama)", EmbedRequest, OK, "OllamaError")},
    "/api/embeddings": {"post": _asks("A vector (Ollama)", EmbeddingsRequest, OK, "OllamaError")},
    "/api/show": {
        "post": Route("What a model is", ShowRequest, "OllamaError", errors=(404, 408, 413))
    },
    "/api/tags": {"get": Route("All models (Ollama)", error="OllamaError")},
    "/api/ps": {"get": Route("What is loaded (Ollama)", error="OllamaError")},
    "/api/version": {"get": Route("Whose API this is (Ollama)", error="OllamaError")},
    **{
        f"/api/{action}/{{digest}}" if action == BLOBS else f"/api/{action}": {
            "delete" if action == "delete" else "post": Route(
                f"Not here: {told}", None, "OllamaError", answers={}, errors=(501,)
            )
        }
        for action, told in INSTEAD.items()
    },
    "/api/hello": {"get": Route("What there is", error="OllamaError", answers=OK_TEXT)},
    "/": {"get": Route("What there is", answers=OK_TEXT)},
    "/health": {"get": Route("Whether the server lives")},
    "/livez": {"get": Route("Whether the server lives")},
    "/readyz": {"get": Route("Whether it takes requests for models", errors=(503,))},
    "/running": {"get": Route("Workers, and who waits")},
    "/metrics": {"get": Route("Figures for Prometheus", answers=OK_TEXT)},
    "/openapi.json": {"get": Route("This document")},
    "/logs": {
        "get": Route(
            "What workers write; with follow=1 without an end",
            answers=OK_TEXT,
            errors=(404,),
            query=("model", "follow"),
        )
    },
    "/logs/stream": {"get": Route("The same without an end", answers=OK_TEXT)},
    "/unload": {"get": Route("Unload all models (llama-swap)", answers=OK_TEXT, errors=(503,))},
    "/api/models/unload": {"post": Route("Unload all models (llama-swap)", error="OllamaError", errors=(503,))},
    "/api/models/unload/{model}": {
        "post": Route(
            "Unload a model (llama-swap)", None, "OllamaError", answers=OK_TEXT, errors=(404, 503)
        )
    },
    "/swapper/v1/state": {"get": Route("Devices, models, the last requests")},
    "/swapper/v1/events": {"get": Route("The same whenever it changes; of the requests, the new ones", answers={200: (EVENTS,)})},
    "/swapper/v1/requests": {
        "get": Route("The last requests, and how much of them is kept"),
        "delete": Route("Forget what is kept of them"),
    },
    "/swapper/v1/requests/{number}": {
        "get": Route("One of them, with what was said; where `capture` is on", errors=(404,))
    },
    "/swapper/v1/decisions": {
        "get": Route("Who was moved out for whom, and why", errors=(404,), query=("model",))
    },
    "/swapper/v1/reload": {"post": Route("Read the configuration anew", errors=(404,))},
    **{
        f"/swapper/v1/models/{{model}}/{action}": {
            "post": Route(told, answers={200: (JSON,), 202: (JSON,)}, errors=(404,))
        }
        for action, told in (("load", "Begin to load, or to wake"), ("wake", "The same"))
    },
    "/swapper/v1/models/{model}/unload": {"post": Route("Unload", errors=(404, 503))},
    "/swapper/v1/models/{model}/sleep": {
        "post": Route("Put to sleep: its device memory is given back", errors=(404, 409, 503))
    },
    "/swapper/v1/models/{model}/pin": {
        "post": Route("Move it out for no other model", errors=(404,))
    },
    "/swapper/v1/models/{model}/unpin": {"post": Route("And again as any", errors=(404,))},
    **{
        path: {
            "post": Route(
                "Memory for another program", Wanted, answers={201: (JSON,)}, errors=(408, 413, 503)
            )
        }
        for path in LEASES
    },
    **{f"{path}/{{lease}}": {"delete": Route("Give it back", errors=(404,))} for path in LEASES},
    "/upstream/{model}/{path}": {
        method: Route("The model's own server", None, loads=True, answers=ANY)
        for method in ("get", "post")
    },
}  # fmt: skip
ALWAYS: Final = (400, 401, 403, 429)  # what any request may get; the last by its key's rate
WHERE_LOADED: Final = (404, 408, 413, 500, 502, 503)
ERRORS: Final[Json] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                    "cause": {"type": "string", "description": "why a load failed"},
                },
            }
        },
    },
    "AnthropicError": {
        "type": "object",
        "required": ["type", "error", "request_id"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            },
            "request_id": {"type": "string"},
        },
    },
    "OllamaError": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
}


@cache
def document() -> Json:
    """The document; not to be changed."""
    operations = [route for methods in ROUTES.values() for route in methods.values()]
    types = {route.body for route in operations if isinstance(route.body, type)}
    ordered = sorted(types, key=lambda it: it.__qualname__)
    found, components = msgspec.json.schema_components(
        ordered, ref_template=REF + "{name}", schema_hook=_anything
    )
    bodies = dict(zip(ordered, found, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {"title": "swapper", "version": __version__, "license": {"name": "MIT"}},
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": {
            path: {method: _operation(path, route, bodies) for method, route in methods.items()}
            for path, methods in ROUTES.items()
        },
        "components": {
            "schemas": {**ERRORS, **components},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _anything(kind: type) -> Json:
    return {"description": "anything"}


def _operation(path: str, route: Route, bodies: Mapping[type, Json]) -> Json:
    operation: Json = {
        "summary": route.summary,
        "responses": _responses(route),
        "parameters": [*_path_parameters(path), *map(_query_parameter, route.query)],
    }
    if isinstance(route.body, dict):
        operation["requestBody"] = _body("multipart/form-data", route.body)
    elif route.body is not None:
        operation["requestBody"] = _body(JSON, bodies[route.body])
    return operation


def _body(media: str, schema: Json) -> Json:
    return {"required": True, "content": {media: {"schema": schema}}}


def _responses(route: Route) -> Json:
    answers = OK if route.answers is None else route.answers
    told: Json = {
        str(status): {"description": "As asked", "content": {it: {"schema": {}} for it in media}}
        for status, media in answers.items()
    }
    schema = {"$ref": REF + route.error}
    for status in sorted({*ALWAYS, *route.errors, *(WHERE_LOADED if route.loads else ())}):
        told[str(status)] = {"description": "Refused", "content": {JSON: {"schema": schema}}}
    return told


def _path_parameters(path: str) -> list[Json]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]


def _query_parameter(name: str) -> Json:
    return {"name": name, "in": "query", "schema": {"type": "string"}}
