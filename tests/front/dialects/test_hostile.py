"""Whatever a client sends is answered with a translation or a 400, whatever a worker sends with an
answer or an error: nothing else is raised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapper.errors import BadRequest
from swapper.front.dialects.anthropic.count import read_count
from swapper.front.dialects.anthropic.messages import Messages
from swapper.front.dialects.responses.responses import Responses
from swapper.front.telling import UNREADABLE
from tests.front.dialects.streams import ASKED

WORDS = st.sampled_from(
    [
        "text", "image", "tool_use", "tool_result", "thinking", "document", "search_result", "user",
        "assistant", "system", "base64", "url", "function", "namespace", "custom", "message",
        "function_call", "function_call_output", "reasoning", "input_text", "input_image",
        "json_schema", "allowed_tools", "auto", "tool", "", "\ud83d",
    ]
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "type", "text", "source", "data", "media_type", "url", "content", "role", "name", "input",
        "id", "tool_use_id", "call_id", "arguments", "output", "title", "format", "schema", "tools",
        "parameters", "input_schema", "thinking", "summary", "namespace", "image_url", "mode",
    ]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats() | WORDS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)
FIELDS = (
    "messages", "max_tokens", "system", "tools", "tool_choice", "thinking", "output_config", "input",
    "stream", "stop_sequences", "text", "reasoning", "instructions", "previous_response_id",
)  # fmt: skip
PARTS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=3)
BODIES = st.fixed_dictionaries(
    {"model": st.just("m"), "max_tokens": st.just(5)},
    optional={
        **{name: VALUES for name in FIELDS if name != "max_tokens"},
        "messages": st.lists(
            st.fixed_dictionaries({"role": WORDS, "content": PARTS | WORDS}), max_size=3
        ),
        "input": PARTS,
        "tools": PARTS,
    },
)


@given(BODIES)
@settings(max_examples=400, deadline=None)
def test_bodies(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    for read in (
        lambda: Messages().read(raw, ASKED),
        lambda: Responses().read(raw, ASKED),
        lambda: read_count(raw),
    ):
        try:
            read()
        except BadRequest:
            pass


DELTAS = st.dictionaries(
    st.sampled_from(["content", "reasoning_content", "tool_calls", "role"]), VALUES, max_size=3
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 2),
            "id": st.text(max_size=3),
            "function": st.fixed_dictionaries(
                {}, optional={"name": st.text(max_size=3), "arguments": st.text(max_size=3)}
            ),
        },
    ),
    max_size=3,
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "delta": DELTAS | st.fixed_dictionaries({"tool_calls": CALLS}),
        "message": DELTAS,
        "finish_reason": WORDS | st.none(),
        "stop_reason": VALUES,
    },
)
CHUNKS = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(CHOICES, max_size=2) | VALUES, "usage": VALUES}
)


@pytest.mark.parametrize("body", [{"messages": [{"role": "user", "content": "x"}]}, {"input": "x"}])
@given(chunks=st.lists(CHUNKS, max_size=4))
@settings(max_examples=400, deadline=None)
def test_answers(body: dict[str, Any], chunks: list[dict[str, Any]]) -> None:
    dialect = Messages() if "messages" in body else Responses()
    raw = json.dumps({"model": "m", "max_tokens": 5, **body}).encode()
    translation = dialect.read(raw, ASKED)
    try:
        for chunk in chunks:
            translation.chunk(chunk)
        translation.end()
        dialect.read(raw, ASKED).whole(chunks[0] if chunks else {})
    except UNREADABLE:
        pass
