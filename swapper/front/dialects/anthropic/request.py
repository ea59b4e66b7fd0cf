"""`POST /v1/messages` as a chat completion.

Fields that change nothing for a local model (`metadata`, `cache_control`, betas) are ignored; what
would change the answer and cannot be done is refused.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Json
from swapper.front.dialects.reading import parts, simplest, text_of
from swapper.front.dialects.turns import tidy

BILLING: Final = "x-anthropic-billing-header:"  # differs from request to request, and says nothing
EFFORTS: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
SERVERS_OWN: Final = ("redacted_thinking", "server_tool_use")  # of no use to another model


class MessagesRequest(msgspec.Struct, kw_only=True):
    """What of the body is looked at. Null is the same as absent."""

    model: str
    messages: list[Json]
    max_tokens: int | None = None
    system: str | list[Json] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[Json] | None = None
    tool_choice: Json | None = None
    thinking: Json | None = None
    output_config: Json | None = None
    output_format: Json | None = None
    mcp_servers: list[Json] | None = None
    container: str | Json | None = None

    @property
    def hides_thinking(self) -> bool:
        """The client wants none."""
        return (self.thinking or {}).get("type") == "disabled"


def chat_body(request: MessagesRequest) -> Json:
    """OpenAI's body, without `model`; raises BadRequest."""
    if request.max_tokens is None:
        raise BadRequest("max_tokens is required", param="max_tokens")
    if request.max_tokens < 1:
        raise BadRequest("max_tokens must be at least 1", param="max_tokens")
    for name in ("mcp_servers", "container"):
        if getattr(request, name):
            raise BadRequest(
                f"{name}: only Anthropic's servers have them; leave it out", param=name
            )
    body: Json = {**prompt(request), "max_tokens": request.max_tokens}
    for name in ("temperature", "top_p", "top_k"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.stop_sequences:
        body["stop"] = request.stop_sequences
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if form := _response_format(request):
        body["response_format"] = form
    return body


def prompt(request: MessagesRequest) -> Json:
    """The part of the body that makes the prompt."""
    messages = _messages(request)
    body: Json = {"messages": messages}
    if messages[-1]["role"] == "assistant":  # begun by the client, to be gone on with
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.tools:
        body["tools"] = [_tool(tool, f"tools.{i}") for i, tool in enumerate(request.tools)]
    if request.tool_choice:
        body |= _tool_choice(request.tool_choice)
    if (kind := (request.thinking or {}).get("type")) in ("enabled", "disabled"):
        body["chat_template_kwargs"] = {"enable_thinking": kind == "enabled"}
    effort = str((request.output_config or {}).get("effort"))
    if effort in EFFORTS:
        body["reasoning_effort"] = EFFORTS[effort]
    return body


# ---------------------------------------------------------------- messages


def _messages(request: MessagesRequest) -> list[Json]:
    if not request.messages:
        raise BadRequest("messages: at least one message is required", param="messages")
    system = _system(request.system)
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    for index, message in enumerate(request.messages):
        where = f"messages.{index}"
        blocks = parts(message.get("content"), f"{where}.content")
        match message.get("role"):
            case "user":
                messages += _user(blocks, f"{where}.content")
            case "assistant":
                messages.append(_assistant(blocks, f"{where}.content"))
            case "system":
                messages.append({"role": "system", "content": _system(blocks)})
            case role:
                raise BadRequest(f"{where}.role: {role!r} is not user or assistant", param=where)
    return tidy(messages)


def _system(system: str | list[Json] | None) -> str:
    texts = (text_of(block, "system") for block in parts(system, "system"))
    return "\n\n".join(text for text in texts if not text.startswith(BILLING))


def _user(blocks: list[Json], where: str) -> list[Json]:
    """Results of tools are messages of their own and come first; their pictures follow them."""
    results: list[Json] = []
    rest: list[Json] = []
    for index, block in enumerate(blocks):
        place = f"{where}.{index}"
        if block.get("type") == "tool_result":
            result, pictures = _tool_result(block, place)
            results.append(result)
            rest += pictures
        else:
            rest += _shown(block, place)
    if rest or not results:
        results.append({"role": "user", "content": simplest(rest)})
    return results


def _tool_result(block: Json, where: str) -> tuple[Json, list[Json]]:
    name = text_of(block, where, "tool_use_id")
    content = [
        part
        for index, inner in enumerate(parts(block.get("content"), f"{where}.content"))
        for part in _shown(inner, f"{where}.content.{index}")
    ]
    text = "\n\n".join(part["text"] for part in content if part["type"] == "text")
    if block.get("is_error"):
        text = f"Error: {text}"
    pictures = [part for part in content if part["type"] != "text"]
    return {"role": "tool", "tool_call_id": name, "content": text}, pictures


def _shown(block: Json, where: str) -> list[Json]:
    """What a user shows, as parts of OpenAI's."""
    match block.get("type"):
        case "text":
            return [{"type": "text", "text": text_of(block, where)}]
        case "image":
            return [{"type": "image_url", "image_url": {"url": _picture(block, where)}}]
        case "document":
            return _document(block, where)
        case "search_result":
            lines = [str(block[key]) for key in ("title", "source") if block.get(key)]
            inner = parts(block.get("content"), where)
            return [{"type": "text", "text": "\n".join(lines)}, *_all_shown(inner, where)]
        case "tool_reference":
            return []
        case kind:
            raise BadRequest(
                f"{where}: blocks of type {kind!r} cannot be given to this model", param=where
            )


def _all_shown(blocks: list[Json], where: str) -> list[Json]:
    return [part for i, block in enumerate(blocks) for part in _shown(block, f"{where}.{i}")]


def _picture(block: Json, where: str) -> str:
    """An address, or the data as one."""
    source = _source(block, where)
    match source.get("type"):
        case "base64":
            kind = text_of(source, where, "media_type")
            return f"data:{kind};base64,{text_of(source, where, 'data')}"
        case "url":
            return text_of(source, where, "url")
    raise BadRequest(f"{where}.source: only base64 and url are possible here", param=where)


def _document(block: Json, where: str) -> list[Json]:
    source = _source(block, where)
    title = [{"type": "text", "text": str(block["title"])}] if block.get("title") else []
    match source.get("type"):
        case "text":
            return [*title, {"type": "text", "text": text_of(source, where, "data")}]
        case "content":
            return [*title, *_all_shown(parts(source.get("content"), where), where)]
    raise BadRequest(f"{where}: only documents of plain text can be read here", param=where)


def _source(block: Json, where: str) -> Json:
    source = block.get("source")
    if not isinstance(source, dict):
        raise BadRequest(f"{where}.source must be an object", param=where)
    return source


def _assistant(blocks: list[Json], where: str) -> Json:
    texts: list[Json] = []
    thoughts: list[str] = []
    calls: list[Json] = []
    for index, block in enumerate(blocks):
        place = f"{where}.{index}"
        match block.get("type"):
            case "text":
                texts.append({"type": "text", "text": text_of(block, place)})
            case "thinking":
                thoughts.append(text_of(block, place, "thinking"))
            case "tool_use":
                calls.append(_call(block, place))
            case str(kind) if kind in SERVERS_OWN or kind.endswith("_tool_result"):
                pass
            case kind:
                raise BadRequest(f"{place}: {kind!r} is no block of an assistant", param=place)
    message: Json = {
        "role": "assistant",
        "content": simplest(texts) if texts or not calls else None,
    }
    if thoughts:
        message["reasoning_content"] = "\n\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Json, where: str) -> Json:
    arguments = msgspec.json.encode(block.get("input") or {}).decode()
    function = {"name": text_of(block, where, "name"), "arguments": arguments}
    return {"id": text_of(block, where, "id"), "type": "function", "function": function}


# ---------------------------------------------------------------- tools and form


def _tool(tool: Json, where: str) -> Json:
    if tool.get("type") not in (None, "custom"):
        raise BadRequest(
            f"{where}: a tool of type {tool['type']!r} runs on Anthropic's servers or needs their "
            "models; give a tool with an input_schema",
            param=where,
        )
    function: Json = {
        "name": text_of(tool, where, "name"),
        "parameters": tool.get("input_schema") or {"type": "object", "properties": {}},
    }
    if tool.get("description"):
        function["description"] = tool["description"]
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def _tool_choice(choice: Json) -> Json:
    kind = str(choice.get("type"))
    told: dict[str, Any] = {}
    if kind == "tool":
        name = text_of(choice, "tool_choice", "name")
        told["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind in CHOICES:
        told["tool_choice"] = CHOICES[kind]
    else:
        raise BadRequest("tool_choice.type must be auto, any, tool or none", param="tool_choice")
    if choice.get("disable_parallel_tool_use"):
        told["parallel_tool_calls"] = False
    return told


def _response_format(request: MessagesRequest) -> Json | None:
    form = (request.output_config or {}).get("format") or request.output_format
    if form is None:
        return None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        raise BadRequest("output_config.format.type must be json_schema", param="output_config")
    schema = {"name": "output", "schema": form.get("schema"), "strict": True}
    return {"type": "json_schema", "json_schema": schema}
