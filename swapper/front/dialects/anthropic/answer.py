"""A chat completion's answer as Anthropic's message, whole or event by event."""

from __future__ import annotations

import re
from typing import Final

from swapper.front.dialects.anthropic.errors import error_of
from swapper.front.dialects.anthropic.request import MessagesRequest, chat_body
from swapper.front.dialects.dialect import Asked, Json, StreamTranslation
from swapper.front.dialects.events import event
from swapper.front.dialects.reading import (
    arguments_object,
    first_choice,
    reasoning,
    stopped_by,
)
from swapper.front.dialects.steps import Argued, Called, Said, Step, StepReader, Thought
from swapper.front.refusal import Refusal

SIGNATURE: Final = "swapper"  # nobody checks it, but some clients drop thoughts that have none
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


class MessagesTranslation(StreamTranslation):
    """One `POST /v1/messages`. Of a stream it knows which block is open: one at a time."""

    def __init__(self, request: MessagesRequest, asked: Asked) -> None:
        self.model = request.model
        self.stream = request.stream is True
        self.body = chat_body(request)
        self._request = request
        self._id = "msg_" + asked.unique
        self._has_begun = False
        self._num_blocks = 0  # begun
        self._open: str | None = None  # `text`, `thinking`, or `call` and its number
        self._steps = StepReader()
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
            blocks.append({"type": "thinking", "thinking": thought, "signature": SIGNATURE})
        if message.get("content"):
            blocks.append({"type": "text", "text": message["content"]})
        for index, call in enumerate(message.get("tool_calls") or []):
            name, arguments = call["function"]["name"], call["function"].get("arguments") or ""
            block = self._tool_use(Called(index, call.get("id") or "", name))
            blocks.append({**block, "input": arguments_object(arguments)})
        usage = _usage(answer.get("usage") or {})
        return {**self._message(), "content": blocks, **self._stop(choice), "usage": usage}

    # ------------------------------------------------------------ in a stream

    def chunk(self, chunk: Json) -> bytes:
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        elif not self._has_begun:
            self._usage = _usage(_prompt_usage(chunk.get("timings") or {}))
        begun = self._begin()
        choice = first_choice(chunk)
        if choice is None:
            return begun
        told = b"".join(map(self._told, self._steps.read(choice.get("delta") or {})))
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

    def _told(self, step: Step) -> bytes:
        match step:
            case Thought(_) if self._request.hides_thinking:
                return b""
            case Thought(text):
                block = {"type": "thinking", "thinking": "", "signature": ""}
                delta = {"type": "thinking_delta", "thinking": text}
                return self._switch("thinking", block) + self._delta(delta)
            case Said(text):
                delta = {"type": "text_delta", "text": text}
                return self._switch("text", {"type": "text", "text": ""}) + self._delta(delta)
            case Called():
                return self._switch(f"call {step.index}", self._tool_use(step))
            case Argued(text):
                return self._delta({"type": "input_json_delta", "partial_json": text})

    def _switch(self, kind: str, block: Json) -> bytes:
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
        signed = b""
        if self._open == "thinking":
            signed = self._delta({"type": "signature_delta", "signature": SIGNATURE})
        self._open = None
        return signed + event({"type": "content_block_stop", "index": self._index})

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

    def _tool_use(self, call: Called) -> Json:
        """The id is the worker's own, as it comes back with the tool's result."""
        id = _NOT_OF_IDS.sub("_", call.id) or f"toolu_{self._id}_{call.index}"
        return {"type": "tool_use", "id": id, "name": call.name, "input": {}}


def _usage(usage: Json) -> Json:
    """What was read from a cache counts apart."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        **NOTHING_USED,
        "input_tokens": (usage.get("prompt_tokens") or 0) - cached,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens") or 0,
    }


def _prompt_usage(timings: Json) -> Json:
    """What is known of the prompt before the answer: some servers tell it in llama.cpp's words."""
    num_cached, num_new = timings.get("cache_n"), timings.get("prompt_n")
    if not isinstance(num_cached, int) or not isinstance(num_new, int):
        return {}
    details = {"cached_tokens": num_cached}
    return {"prompt_tokens": num_cached + num_new, "prompt_tokens_details": details}
