"""What an answer comes to, read from its bytes: the text of a stream in one piece, its tokens, how it ended.

For people who look at it, so it is read as far as it goes: what is not understood is left out. Any of the
dialects is known by its looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from swapper.front.dialects.events import EventReader, EventTooLong

Json = dict[str, Any]

UNREADABLE: Final = (KeyError, TypeError, AttributeError, ValueError, IndexError)


@dataclass(slots=True)
class ToolCall:
    """A call of a tool; `arguments` as the model wrote them."""

    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Joined:
    """An answer in one piece; None where it does not say."""

    text: str = ""
    reasoning: str = ""
    calls: dict[object, ToolCall] = field(
        default_factory=dict
    )  # by what the stream tells them apart by
    finish: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


def joined(content_type: str, body: bytes) -> Joined:
    """What the answer says; raises nothing."""
    found = Joined()
    for item in _items(content_type, body):
        try:
            _take(found, item)
        except UNREADABLE:
            continue
    return found


def _items(content_type: str, body: bytes) -> Iterator[Json]:
    if content_type.startswith("text/event-stream"):
        try:
            pieces = EventReader().feed(body + b"\n\n")
        except EventTooLong:
            return
    elif content_type.startswith("application/x-ndjson"):
        pieces = body.split(b"\n")
    else:
        pieces = [body]
    for piece in pieces:
        try:
            item = msgspec.json.decode(piece)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(item, dict):
            yield item


def _take(found: Joined, item: Json) -> None:
    kind = item.get("type") or item.get("object") or ""
    if "choices" in item:
        _openai(found, item)
    elif "done" in item:
        _ollama(found, item)
    elif kind == "response" or kind.startswith("response."):
        _responses(found, kind, item)
    else:
        _anthropic(found, kind, item)


def _openai(found: Joined, item: Json) -> None:
    _count(found, item.get("usage") or {}, "prompt_tokens", "completion_tokens")
    for choice in item["choices"]:
        if choice.get("index", 0) != 0:
            continue
        found.finish = choice.get("finish_reason") or found.finish
        said = choice.get("delta") or choice.get("message") or {}
        found.text += said.get("content") or choice.get("text") or ""
        found.reasoning += said.get("reasoning_content") or said.get("reasoning") or ""
        for place, call in enumerate(said.get("tool_calls") or ()):
            _call(found, call.get("index", place), **_function(call))


def _function(call: Json) -> dict[str, str]:
    function = call.get("function") or {}
    return {"name": function.get("name") or "", "arguments": _text(function.get("arguments"))}


def _ollama(found: Joined, item: Json) -> None:
    _count(found, item, "prompt_eval_count", "eval_count")
    found.finish = item.get("done_reason") or found.finish
    said = item.get("message") or {}
    found.text += said.get("content") or item.get("response") or ""
    found.reasoning += said.get("thinking") or item.get("thinking") or ""
    for call in said.get("tool_calls") or ():
        _call(found, len(found.calls), **_function(call))


def _anthropic(found: Joined, kind: str, item: Json) -> None:
    message = item.get("message") or item
    _count(found, message.get("usage") or {}, "input_tokens", "output_tokens")
    if kind == "message":
        found.finish = item.get("stop_reason")
        for place, block in enumerate(item["content"]):
            _block(found, place, block)
    elif kind == "content_block_start":
        _block(found, item["index"], {**item["content_block"], "input": None})
    elif kind == "content_block_delta":
        _block(found, item["index"], item["delta"])
    elif kind == "message_delta":
        found.finish = item["delta"].get("stop_reason") or found.finish


def _block(found: Joined, place: int, block: Json) -> None:
    found.text += block.get("text") or ""
    found.reasoning += block.get("thinking") or ""
    if block["type"] in ("tool_use", "input_json_delta"):
        arguments = block.get("partial_json") or _text(block.get("input"))
        _call(found, place, block.get("name") or "", arguments)


def _responses(found: Joined, kind: str, item: Json) -> None:
    """The last event of a stream holds all of it, as an answer that comes whole does."""
    response = item if kind == "response" else item.get("response")
    if kind == "response.output_text.delta":
        found.text += item["delta"]
    if response is None or response.get("status") in ("in_progress", "queued"):
        return
    _count(found, response.get("usage") or {}, "input_tokens", "output_tokens")
    details = response.get("incomplete_details") or {}
    found.finish = details.get("reason") or response.get("status")
    found.text = found.reasoning = ""
    for place, output in enumerate(response.get("output") or ()):
        if output["type"] == "function_call":
            _call(found, place, output["name"], output["arguments"])
        texts = "".join(part.get("text") or "" for part in output.get("content") or ())
        if output["type"] == "reasoning":
            summary = "".join(part.get("text") or "" for part in output.get("summary") or ())
            found.reasoning += texts or summary
        else:
            found.text += texts


def _count(found: Joined, usage: Json, prompt: str, answer: str) -> None:
    if isinstance(count := usage.get(prompt), int):
        found.prompt_tokens = count
    if isinstance(count := usage.get(answer), int):
        found.answer_tokens = count


def _call(found: Joined, place: object, name: str, arguments: str) -> None:
    call = found.calls.setdefault(place, ToolCall())
    call.name += name
    call.arguments += arguments


def _text(arguments: object) -> str:
    """As the model wrote them, or as JSON where they came as an object."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
