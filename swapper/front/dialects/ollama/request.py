"""Requests for chats, generations and embeddings as OpenAI's bodies.

Unknown fields and options are ignored, as Ollama does; what would change the answer and cannot be done
is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import CHAT, Json
from swapper.front.dialects.ollama.memory import recalled
from swapper.front.dialects.ollama.messages import Message, chat_messages, shown
from swapper.front.dialects.ollama.options import Options, response_format, sampling, thinking

COMPLETIONS: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"


class Wish(msgspec.Struct, kw_only=True):
    """What all requests share."""

    model: str
    keep_alive: float | str | None = None
    options: Options | None = None


class Generation(Wish, kw_only=True):
    """What requests for texts share."""

    stream: bool | None = None  # true, where it is not said
    format: object = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class ChatRequest(Generation, kw_only=True):
    """`POST /api/chat`."""

    messages: list[Message] | None = None
    tools: list[Json] | None = None


class GenerateRequest(Generation, kw_only=True):
    """`POST /api/generate`."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class EmbedRequest(Wish, kw_only=True):
    """`POST /api/embed`."""

    input: str | list[str] | None = None
    dimensions: int | None = None
    truncate: bool | None = None


class EmbeddingsRequest(Wish, kw_only=True):
    """`POST /api/embeddings`, the older one."""

    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a worker is asked. Without a path it is asked nothing: the model is to be loaded, or to go."""

    path: str | None
    body: Json = field(default_factory=dict)


NOTHING: Final = Question(None)


def chat_question(request: ChatRequest) -> Question:
    """Raises BadRequest."""
    if not request.messages:
        return NOTHING
    messages = chat_messages(request.messages)
    body: Json = {"messages": messages, **_common(request)}
    last = messages[-1]
    if last["role"] == "assistant" and "tool_calls" not in last:  # begun, to be gone on with
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.tools:
        body["tools"] = request.tools
    return Question(CHAT, body)


def generate_question(request: GenerateRequest) -> Question:
    """Raises BadRequest."""
    if request.template:
        raise BadRequest(
            "template: templates in Go's language cannot be used here; the model's own is. Send raw: "
            "true with a prompt that is ready, or messages to /api/chat",
            param="template",
        )
    if not (request.prompt or request.suffix or request.images):
        return NOTHING
    if request.raw or request.suffix:
        return _plain(request)
    messages = recalled(request.context or ())
    if request.system:
        messages = [m for m in messages if m["role"] != "system"]
        messages.insert(0, {"role": "system", "content": request.system})
    messages.append({"role": "user", "content": shown(request.prompt, request.images)})
    return Question(CHAT, {"messages": messages, **_common(request)})


def _plain(request: GenerateRequest) -> Question:
    """A prompt that goes to the model as it is, or a gap to fill."""
    kind = "raw" if request.raw else "suffix"
    for name in ("system", "context", "images"):
        if getattr(request, name):
            raise BadRequest(f"{name} does not go together with {kind}", param=name)
    # Without a limit OpenAI's completions are very short; -1 is none, in llama.cpp's words.
    body: Json = {"prompt": request.prompt or "", "max_tokens": -1, **_common(request)}
    for of_chats in ("chat_template_kwargs", "reasoning_effort", "top_logprobs"):
        body.pop(of_chats, None)
    if request.logprobs:
        body["logprobs"] = request.top_logprobs or 0
    if request.suffix:
        body["suffix"] = request.suffix
    return Question(COMPLETIONS, body)


def _common(request: Generation) -> Json:
    body = {
        **sampling(request.options),
        **response_format(request.format),
        **thinking(request.think),
    }
    if request.logprobs:
        body["logprobs"] = True
        if request.top_logprobs:
            body["top_logprobs"] = request.top_logprobs
    if request.stream is not False:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def embed_question(request: EmbedRequest) -> Question:
    """Raises BadRequest."""
    if request.input is None:
        raise BadRequest("input is required", param="input")
    if not request.input:
        return NOTHING
    body: Json = {"input": request.input}
    if request.dimensions:
        body["dimensions"] = request.dimensions
    if request.truncate:  # only where it is said: what is cut off unseen is missed by nobody
        body["truncate_prompt_tokens"] = -1
    return Question(EMBEDDINGS, body)


def embeddings_question(request: EmbeddingsRequest) -> Question:
    """As the newer one does it, for one text."""
    return Question(EMBEDDINGS, {"input": request.prompt}) if request.prompt else NOTHING
