"""A chat completion's answer as Anthropic's message, whole or event by event."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from swapper.front.dialects.anthropic.errors import error_of
from swapper.front.dialects.anthropic.request import MessagesRequest, chat_body
from swapper.front.dialects.dialect import Json, Translation
from swapper.front.dialects.events import event
from swapper.front.dialects.reading import first_choice, reasoning, stopped_by
from swapper.front.refusal import Refusal

PING: Final = event({"type": "ping"})
STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
NOTHING_USED: Final = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}
_NOT_OF_IDS = re.compile(r"[^A-Za-z0-9_-]")


class MessagesTranslation(Translation):
    """One `POST /v1/messages`. Of a stream it knows which block is open: one at a time."""

    def __init__(self, request: MessagesRequest, request_id: str) -> None:
        self.model = request.model
        self.stream = request.stream is True
        self.body = chat_body(request)
        self._request = request
        self._id = "msg_" + _NOT_OF_IDS.sub("_", request_id)
        self._has_begun = False
        self._num_blocks = 0  # begun
        self._open: str | int | None = None  # `text`, `thinking`, or the number of a tool call
        self._calls: dict[int, _Call] = {}
        self._finish: Json = {}
        self._usage: Json = NOTHING_USED

    def waiting(self) -> bytes:
        return PING

    # ------------------------------------------------------------ whole

    def whole(self, answer: Json) -> object:
        choice = answer["choices"][0]
        message = choice["message"]
        blocks: list[Json] = []
        if (thought := reasoning(message)) and not self._request.hides_thinking:
            blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
        if message.get("content"):
            blocks.append({"type": "text", "text": message["content"]})
        for index, call in enumerate(message.get("tool_calls") or []):
            function = call["function"]
            started = _Call(self._call_id(call.get("id"), index), function["name"])
            blocks.append({**started.block, "input": _input(function.get("arguments") or "")})
        usage = _usage(answer.get("usage") or {})
        return {**self._message(), "content": blocks, **self._stop(choice), "usage": usage}

    # ------------------------------------------------------------ in a stream

    def chunk(self, chunk: Json) -> bytes:
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        begun = self._begin()
        choice = first_choice(chunk)
        if choice is None:
            return begun
        told = self._told(choice.get("delta") or {})
        if choice.get("finish_reason"):
            self._finish = choice
        return begun + told

    def end(self) -> bytes:
        delta = {
            "type": "message_delta",
            "delta": self._stop(self._finish),
            "usage": self._usage,
        }
        return self._begin() + self._close() + event(delta) + event({"type": "message_stop"})

    def broken(self, refusal: Refusal, request_id: str) -> bytes:
        return event(error_of(refusal, request_id))

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        message = {
            **self._message(),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage,
        }
        return event({"type": "message_start", "message": message})

    def _told(self, delta: Json) -> bytes:
        said = b""
        if (thought := reasoning(delta)) and not self._request.hides_thinking:
            said += self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            said += self._delta({"type": "thinking_delta", "thinking": thought})
        if delta.get("content"):
            said += self._switch("text", {"type": "text", "text": ""})
            said += self._delta({"type": "text_delta", "text": delta["content"]})
        for call in delta.get("tool_calls") or []:
            said += self._called(call)
        return said

    def _called(self, piece: Json) -> bytes:
        """A piece of a tool call. Its block begins once the tool's name is known."""
        function = piece.get("function") or {}
        index = piece.get("index", 0)
        call = self._calls.get(index)
        if call is None:
            call = self._calls[index] = _Call(self._call_id(piece.get("id"), index))
        call.name = call.name or function.get("name") or ""
        call.unsent += function.get("arguments") or ""
        if not call.name or (call.has_begun and not call.unsent):
            return b""
        if call.has_begun and self._open != index:
            raise ValueError("pieces of several tool calls come mixed")
        begun = b"" if call.has_begun else self._switch(index, call.block)
        arguments, call.unsent, call.has_begun = call.unsent, "", True
        if not arguments:
            return begun
        return begun + self._delta({"type": "input_json_delta", "partial_json": arguments})

    def _switch(self, kind: str | int, block: Json) -> bytes:
        """Have a block of that kind open."""
        if self._open == kind:
            return b""
        closed = self._close()
        self._open = kind
        self._num_blocks += 1
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return closed + event(start)

    def _delta(self, delta: Json) -> bytes:
        return event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return event({"type": "content_block_stop", "index": self._index})

    @property
    def _index(self) -> int:
        return self._num_blocks - 1

    # ------------------------------------------------------------ both

    def _message(self) -> Json:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self.model}

    def _stop(self, choice: Json) -> Json:
        stopped = stopped_by(choice)
        if choice.get("finish_reason") == "stop" and stopped in (self.body.get("stop") or ()):
            return {"stop_reason": "stop_sequence", "stop_sequence": stopped}
        reason = STOP_REASONS.get(choice.get("finish_reason") or "stop", "end_turn")
        return {"stop_reason": reason, "stop_sequence": None}

    def _call_id(self, given: object, index: int) -> str:
        """The worker's own, as it comes back with the tool's result."""
        if isinstance(given, str) and given:
            return _NOT_OF_IDS.sub("_", given)
        return f"toolu_{self._id}_{index}"


class _Call:
    """A tool call that streams in."""

    def __init__(self, id: str, name: str = "") -> None:
        self.id = id
        self.name = name
        self.unsent = ""  # of its arguments
        self.has_begun = False

    @property
    def block(self) -> Json:
        return {"type": "tool_use", "id": self.id, "name": self.name, "input": {}}


def _input(arguments: str) -> Any:
    """Arguments as an object; a model may have written something else, or not to its end."""
    try:
        parsed = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return {"INVALID_JSON": arguments}
    return parsed if isinstance(parsed, dict) else {"INVALID_JSON": arguments}


def _usage(usage: Json) -> Json:
    """What was read from a cache counts apart."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        **NOTHING_USED,
        "input_tokens": (usage.get("prompt_tokens") or 0) - cached,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens") or 0,
    }
