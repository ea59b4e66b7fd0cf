"""Every place of a rich request, and of a rich answer, with every wrong value in it: a client is told
400 or gets its answer, a worker's answer is read or cannot be; nothing else is ever raised."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from swapper.errors import BadRequest
from swapper.front.dialects.anthropic.messages import Messages
from swapper.front.dialects.ollama.memory import remembered
from swapper.front.dialects.ollama.routes import Chat, Embed, Embeddings, Generate
from swapper.front.dialects.responses.responses import Responses
from swapper.front.telling import UNREADABLE
from tests.front.dialects.streams import ASKED, call, delta, usage

JUNK = (None, 5, -1, 1e300, True, "", "x", "\ud83d", [], [5], [[]], {}, {"type": []}, {"a": 1})
SCHEMA = {"type": "object"}

MESSAGES = {
    "model": "m",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "s"}],
    "stop_sequences": ["x"],
    "thinking": {"type": "enabled", "budget_tokens": 5},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "tools": [{"name": "n", "description": "d", "input_schema": SCHEMA, "strict": True}],
    "tool_choice": {"type": "tool", "name": "n"},
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "image", "source": {"type": "base64", "media_type": "m", "data": "d"}},
                {"type": "document", "title": "t", "source": {"type": "text", "data": "d"}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "t"}]}},
                {"type": "search_result", "title": "t", "source": "u", "content": [{"type": "text", "text": "t"}]},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "text", "text": "t"},
                {"type": "tool_use", "id": "i", "name": "n", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "is_error": True, "content": [{"type": "text", "text": "t"}]}]},
        {"role": "system", "content": [{"type": "text", "text": "later"}]},
    ],
}  # fmt: skip

RESPONSES = {
    "model": "m",
    "instructions": "i",
    "reasoning": {"effort": "low"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}},
    "metadata": {"a": "b"},
    "include": ["message.output_text.logprobs"],
    "top_logprobs": 2,
    "tools": [
        {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA},
        {"type": "namespace", "name": "s", "tools": [{"type": "function", "name": "g"}, {"type": "custom", "name": "h"}]},
        {"type": "custom", "name": "c", "description": "d", "format": {"type": "grammar", "syntax": "lark", "definition": "d"}},
        {"type": "web_search"},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": "g", "namespace": "s"}]},
    "input": [
        {"role": "developer", "content": [{"type": "input_text", "text": "t"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": "low"}, {"type": "input_audio", "input_audio": {}}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}], "content": [{"type": "reasoning_text", "text": "t"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "t"}, {"type": "refusal", "refusal": "r"}]},
        {"type": "function_call", "call_id": "c", "name": "g", "namespace": "s", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "d", "name": "c", "input": "i"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "t"}, {"type": "input_image", "image_url": "u"}]},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "o"},
    ],
}  # fmt: skip

CHAT = {
    "model": "m",
    "keep_alive": "1h30m",
    "format": SCHEMA,
    "think": "low",
    "options": {"temperature": 1, "top_k": 2, "num_predict": 5, "seed": 1, "stop": ["x"], "num_ctx": 5},
    "tools": [{"type": "function", "function": {"name": "n", "parameters": SCHEMA}}],
    "logprobs": True,
    "top_logprobs": 2,
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "t", "images": ["iVBOR"]},
        {"role": "assistant", "content": "c", "thinking": "t", "tool_calls": [{"id": "i", "function": {"index": 0, "name": "n", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "r", "tool_name": "n", "tool_call_id": "i"},
    ],
}  # fmt: skip
GENERATE = {
    "model": "m",
    "prompt": "p",
    "system": "s",
    "context": remembered([{"role": "user", "content": "u"}]),
    "images": ["iVBOR"],
    "keep_alive": 5,
    "options": {"stop": "x"},
}

STREAM = [
    delta(role="assistant", content="", reasoning_content="r"),
    delta(content="c"),
    delta(tool_calls=[call(0, "i", "f", "{"), call(1, "j", "c", '{"input":"x"}')]),
    delta("stop", content="d"),
    usage(),
]
WHOLE = {
    "choices": [
        {
            "message": {
                "content": "c",
                "reasoning_content": "r",
                "tool_calls": [{"id": "i", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": "stop",
            "stop_reason": "x",
        }
    ],
    "usage": usage()["usage"],
}


def spoiled(value: Any) -> Iterator[Any]:
    """The value with each of its places replaced by each wrong value, and left out."""
    for path in places(value):
        for junk in JUNK:
            changed = copy.deepcopy(value)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = junk
            yield changed


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield (key,)
        if isinstance(item, dict | list):
            yield from ((key, *rest) for rest in places(item))


@pytest.mark.parametrize(
    ("rich", "read"),
    [
        (MESSAGES, lambda raw: Messages().read(raw, ASKED).body),
        (MESSAGES, lambda body: Messages().read_count(body, ASKED)),
        (RESPONSES, lambda raw: Responses().read(raw, ASKED).body),
        (CHAT, lambda raw: Chat().read(raw, ASKED).body),
        (GENERATE, lambda raw: Generate().read(raw, ASKED).body),
        (
            {"model": "m", "input": ["a"], "dimensions": 5},
            lambda raw: Embed().read(raw, ASKED).body,
        ),
    ],
)
def test_requests(rich: dict[str, Any], read: Callable[[bytes], Any]) -> None:
    read(json.dumps(rich).encode())
    num_refused = 0
    for body in spoiled(rich):
        try:
            msgspec.json.encode(read(json.dumps(body).encode()))
        except BadRequest:
            num_refused += 1
    assert num_refused > 10 * len(rich)


@pytest.mark.parametrize(
    ("rich", "dialect"),
    [(MESSAGES, Messages()), (RESPONSES, Responses()), (CHAT, Chat()), (GENERATE, Generate())],
)
def test_answers(rich: dict[str, Any], dialect: Any) -> None:
    raw = json.dumps({**rich, "stream": True}).encode()

    def read() -> Any:
        return dialect.read(raw, ASKED)

    def play(chunks: list[Any]) -> None:
        translation = read()
        for chunk in chunks:
            translation.chunk(chunk)
        translation.end()

    play(STREAM)
    read().whole(WHOLE)
    for chunks in spoiled(STREAM):
        attempt(play, chunks)
    for answer in spoiled(WHOLE):
        attempt(read().whole, answer)


def test_vectors() -> None:
    good = {"data": [{"index": 0, "embedding": [1.0, 2.0]}], "usage": {"prompt_tokens": 1}}
    for answer in spoiled(good):
        for dialect, field in ((Embed(), "input"), (Embeddings(), "prompt")):
            asked = json.dumps({"model": "m", field: "x"}).encode()
            attempt(dialect.read(asked, ASKED).whole, answer)


def attempt(read: Callable[[Any], object], value: Any) -> None:
    try:
        read(value)
    except UNREADABLE:
        pass
