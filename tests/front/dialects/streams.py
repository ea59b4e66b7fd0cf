"""OpenAI's chunks as workers send them, and what a client makes of events."""

from __future__ import annotations

import json
from typing import Any

from swapper.front.dialects.dialect import Asked, StreamTranslation
from swapper.front.dialects.events import EventReader

Json = dict[str, Any]

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 5,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def delta(finish: str | None = None, **fields: Any) -> Json:
    """One chunk of a chat."""
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}


def usage(**fields: Any) -> Json:
    return {"id": "chatcmpl-1", "choices": [], "usage": {**USAGE, **fields}}


def call(index: int, id: str | None = None, name: str | None = None, arguments: str = "") -> Json:
    """A piece of a tool call."""
    function: Json = {"arguments": arguments, **({"name": name} if name else {})}
    return {"index": index, "function": function, **({"id": id, "type": "function"} if id else {})}


def wire(*chunks: Json, ending: str = "\n\n", done: bool = True) -> bytes:
    """The chunks as a worker writes them."""
    lines = [f"data: {json.dumps(chunk)}{ending}" for chunk in chunks]
    return "".join([*lines, f"data: [DONE]{ending}" if done else ""]).encode()


def events(data: bytes) -> list[Json]:
    """What a client reads; the names of events are checked to be their types."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, content = block.split("\n")
        value = json.loads(content.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        found.append(value)
    return found


def told(translation: StreamTranslation, *chunks: Json) -> list[Json]:
    """All events of a stream that goes well."""
    said = b"".join(translation.chunk(chunk) for chunk in chunks)
    return events(said + translation.end())


def read(pieces: list[bytes]) -> list[bytes]:
    reader = EventReader()
    return [data for piece in pieces for data in reader.feed(piece)]


ANSWER = {
    "choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
STREAM = wire(delta(role="assistant", content=""), delta(content="hé"), delta("stop"), usage())
ASKED = Asked("r-1", "1", "", lambda: 1000.5, lambda: 0.5)
