"""The two shapes of generated answers: chat completions and plain completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from backends.serving.choices import Choice, Delta
from backends.serving.engine import Engine
from backends.serving.logprobs import (
    chat_logprobs,
    completion_logprobs,
    joined,
    prompt_logprobs,
)
from backends.serving.prompts import Prompt
from backends.serving.replies import Reply
from backends.serving.tools import CallPart

_json = msgspec.json.encode


class ChatReply(Reply):
    """`chat.completion` and its chunks."""

    prefix = "chatcmpl-"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    opening = b'"delta":{'
    closing = b"}"

    def _events(self, choice: Choice, delta: Delta, is_first: bool) -> bytes:
        events = b""
        if is_first:
            events = self._first_event(choice, b'"role":"assistant","content":""')
        if delta.reasoning:
            events += self._event(choice, b'"reasoning_content":' + _json(delta.reasoning))
        if delta.text or delta.tokens:
            scored = chat_logprobs(self.tokenizer, delta.tokens) if delta.tokens else None
            events += self._event(choice, b'"content":' + _json(delta.text), scored)
        for part in delta.calls:
            said = _json({"tool_calls": [{"index": part.index, **_call_part(part)}]})[1:-1]
            events += self._event(choice, said)
        if delta.finish_reason is not None:
            events += self._event(choice, b"", reason=delta.finish_reason)
        return events

    def _whole(self, choice: Choice, deltas: Sequence[Delta]) -> dict[str, Any]:
        text = "".join(delta.text for delta in deltas)
        reasoning = "".join(delta.reasoning for delta in deltas)
        calls = _whole_calls(part for delta in deltas for part in delta.calls)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if calls else ""),
            "refusal": None,
        }
        if reasoning:
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = calls
        logprobs = None
        if choice.request.sampling.logprobs is not None:
            scored = [scored for delta in deltas for scored in delta.tokens]
            logprobs = chat_logprobs(self.tokenizer, scored)
        return {
            "index": choice.index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": choice.finish_reason,
        }


def _call_part(part: CallPart) -> dict[str, Any]:
    """Who is called is told once, in the first part of a call."""
    if not part.name:
        return {"function": {"arguments": part.arguments}}
    function = {"name": part.name, "arguments": part.arguments}
    return {"id": part.id, "type": "function", "function": function}


def _whole_calls(parts: Iterable[CallPart]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for part in parts:
        if part.name:
            calls.append(_call_part(part))
        else:
            calls[part.index]["function"]["arguments"] += part.arguments
    return calls


class CompletionReply(Reply):
    """`text_completion` and its chunks; with `echo`, the prompt comes before the answer."""

    prefix = "cmpl-"
    kind = "text_completion"
    chunk_kind = "text_completion"
    opening = b'"text":'

    def __init__(
        self, engine: Engine, choices: Sequence[Choice], n: int, echoed: Sequence[Prompt] | None
    ) -> None:
        super().__init__(engine, choices, n)
        self._echoed = [
            "" if echoed is None else echoed[choice.index // n].as_text(self.tokenizer)
            for choice in choices
        ]

    def _events(self, choice: Choice, delta: Delta, is_first: bool) -> bytes:
        text = self._echoed[choice.index] + delta.text if is_first else delta.text
        logprobs = self._logprobs(choice, [delta])
        return self._event(choice, _json(text), logprobs, delta.finish_reason)

    def _logprobs(self, choice: Choice, deltas: Sequence[Delta]) -> dict[str, Any] | None:
        if choice.request.sampling.logprobs is None:
            return None
        offset = len(self._echoed[choice.index])
        prompt = choice.request.prompt
        shapes = [completion_logprobs(self.tokenizer, ())]
        for delta in deltas:
            if delta.prompt_tokens is not None:
                shapes.append(prompt_logprobs(self.tokenizer, prompt, delta.prompt_tokens))
            shapes.append(completion_logprobs(self.tokenizer, delta.tokens, offset))
        return joined(shapes)

    def _whole(self, choice: Choice, deltas: Sequence[Delta]) -> dict[str, Any]:
        return {
            "index": choice.index,
            "text": self._echoed[choice.index] + "".join(delta.text for delta in deltas),
            "logprobs": self._logprobs(choice, deltas),
            "finish_reason": choice.finish_reason,
        }
