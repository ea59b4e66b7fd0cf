"""Tools for a model whose template has no place for them: told in words, calls written as Hermes does.

The answer's grammar sees to it that what begins as a call becomes one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]

_HOW = """\
You may call functions. To call one, write exactly this, with nothing else on its lines:
<tool_call>
{"name": NAME, "arguments": {ARGUMENTS}}
</tool_call>
The results follow in <tool_response>. Call a function only where it helps; answer in words otherwise.
These are the functions, each with the JSON schema of its arguments:"""


def told(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], has_system: bool
) -> list[Message]:
    """The messages in words that any template can show: tools in the first one, calls and their
    results as text. `has_system`: whether the template knows messages of role system."""
    spoken = _joined([_spoken(message) for message in messages])
    if not tools:
        return spoken
    lines = [json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools]
    how = "\n".join([_HOW, *lines])
    role = "system" if has_system else "user"
    first = spoken[0]
    if first["role"] == role:
        return [{**first, "content": f"{how}\n\n{first['content']}"}, *spoken[1:]]
    return [{"role": role, "content": how}, *spoken]


def _spoken(message: Message) -> Message:
    if message["role"] == "tool":
        return {
            "role": "user",
            "content": f"<tool_response>\n{message['content']}\n</tool_response>",
        }
    calls = message.get("tool_calls")
    if not calls:
        return message
    written = [f"<tool_call>\n{_call(call)}\n</tool_call>" for call in calls]
    text = "\n".join([*filter(None, [message["content"]]), *written])
    return {**{k: v for k, v in message.items() if k != "tool_calls"}, "content": text}


def _call(call: Mapping[str, Any]) -> str:
    function = call["function"]
    shown = {"name": function.get("name"), "arguments": function["arguments"]}
    return json.dumps(shown, ensure_ascii=False)


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Results of several calls are one message: many templates want the roles to alternate."""
    joined: list[Message] = []
    for message in messages:
        text = message["content"]
        if joined and text.startswith("<tool_response>") and joined[-1]["role"] == message["role"]:
            joined[-1] = {**joined[-1], "content": f"{joined[-1]['content']}\n{text}"}
        else:
            joined.append(message)
    return joined
