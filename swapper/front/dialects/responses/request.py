"""`POST /v1/responses` as a chat completion."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Json
from swapper.front.dialects.reading import parts, simplest, text_of
from swapper.front.dialects.responses.tools import Tools, read_choice
from swapper.front.dialects.turns import tidy

ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
EFFORTS: Final = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}
SCORES: Final = "message.output_text.logprobs"
CALLS: Final = ("function_call", "custom_tool_call")
OUTPUTS: Final = ("function_call_output", "custom_tool_call_output")
SERVERS_OWN: Final = (  # what OpenAI's servers did by themselves; another model can do without
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_list_tools",
    "mcp_call",
    "tool_search_call",
    "tool_search_output",
)


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """What of the body is looked at. Null is the same as absent, unknown fields are ignored."""

    model: str
    input: str | list[Json] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | Json | None = None
    prompt: Json | None = None
    background: bool | None = None
    stream: bool | None = None
    store: bool | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    text: Json | None = None
    reasoning: Json | None = None
    metadata: Json | None = None
    user: str | None = None


def check(request: ResponsesRequest) -> None:
    """Refuse what would be ignored to the client's harm."""
    if request.background:
        raise BadRequest("background responses are not possible here", param="background")
    if request.conversation is not None:
        raise BadRequest(
            "conversations are not kept here; use previous_response_id", param="conversation"
        )
    if request.prompt is not None:
        raise BadRequest("prompt templates are not kept here; send the input", param="prompt")
    if request.input is None and request.previous_response_id is None:
        raise BadRequest("input is required", param="input")
    if request.max_output_tokens is not None and request.max_output_tokens < 1:
        raise BadRequest("max_output_tokens must be at least 1", param="max_output_tokens")


def chat_body(request: ResponsesRequest, messages: list[Json], tools: Tools) -> Json:
    """OpenAI's body, without `model`: `messages` are those before and of this request."""
    system = request.instructions
    first: list[Json] = [{"role": "system", "content": system}] if system else []
    body: Json = {"messages": tidy([*first, *messages])}
    if not body["messages"]:
        raise BadRequest("input is empty", param="input")
    if tools.functions:
        body["tools"] = tools.functions
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    body |= read_choice(request.tool_choice, tools)
    for name in ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.max_output_tokens is not None:
        body["max_tokens"] = request.max_output_tokens
    if SCORES in (request.include or ()):
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body | _response_format(request.text or {}) | _effort(request.reasoning or {})


def wants_summary(request: ResponsesRequest) -> bool:
    """Whether thoughts are to be told as their summary. Clients that ask for one show nothing else."""
    asked = request.reasoning or {}
    return bool(asked.get("summary") or asked.get("generate_summary"))


def _response_format(text: Json) -> Json:
    form = text.get("format") or {"type": "text"}
    match form.get("type") if isinstance(form, dict) else None:
        case "text":
            return {}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "json_schema":
            keys = ("name", "schema", "strict", "description")
            schema = {key: form[key] for key in keys if form.get(key) is not None}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
    raise BadRequest("text.format.type must be text, json_object or json_schema", param="text")


def _effort(reasoning: Json) -> Json:
    effort = str(reasoning.get("effort"))
    if effort == "none":
        return {"chat_template_kwargs": {"enable_thinking": False}}
    return {"reasoning_effort": EFFORTS[effort]} if effort in EFFORTS else {}


# ---------------------------------------------------------------- items


def read_input(given: list[Json], tools: Tools) -> list[Json]:
    """Items as messages of a chat; raises BadRequest."""
    messages: list[Json] = []
    for index, item in enumerate(given):
        _add(messages, item, f"input[{index}]", tools)
    return messages


def _add(messages: list[Json], item: Json, where: str, tools: Tools) -> None:
    match item.get("type"):
        case None | "message":
            _add_message(messages, item, where)
        case "reasoning":
            thought = _thought(item, where)
            if thought:
                _assistant(messages, has_begun=False)["reasoning_content"] = thought
        case str(kind) if kind in CALLS:
            calls = _assistant(messages).setdefault("tool_calls", [])
            calls.append(_call(item, where, tools))
        case str(kind) if kind in OUTPUTS:
            messages += _output(item, where)
        case str(kind) if kind in SERVERS_OWN:
            pass
        case kind:
            raise BadRequest(f"{where}: items of type {kind!r} cannot be used here", param=where)


def _assistant(messages: list[Json], *, has_begun: bool = True) -> Json:
    """The assistant's turn that an item belongs to: what it thinks begins a new one."""
    last = messages[-1] if messages else None
    if has_begun and last is not None and last["role"] == "assistant":
        return last
    messages.append({"role": "assistant", "content": None})
    return messages[-1]


def _add_message(messages: list[Json], item: Json, where: str) -> None:
    role = ROLES.get(str(item.get("role")))
    if role is None:
        raise BadRequest(f"{where}.role must be one of {', '.join(ROLES)}", param=where)
    given = parts(item.get("content"), f"{where}.content")
    content = simplest([_part(part, f"{where}.content[{i}]") for i, part in enumerate(given)])
    last = messages[-1] if messages else {}
    if role == "assistant" and last.get("role") == role and last["content"] is None:
        last["content"] = content  # behind what was thought, or before it was called
    else:
        messages.append({"role": role, "content": content})


def _part(part: Json, where: str) -> Json:
    match part.get("type"):
        case "input_text" | "output_text" | "text" | "summary_text":
            return {"type": "text", "text": text_of(part, where)}
        case "refusal":
            return {"type": "text", "text": text_of(part, where, "refusal")}
        case "input_image":
            picture = {"url": text_of(part, where, "image_url")}
            if part.get("detail"):
                picture["detail"] = part["detail"]
            return {"type": "image_url", "image_url": picture}
        case "input_audio":
            return {"type": "input_audio", "input_audio": part.get("input_audio")}
        case kind:
            raise BadRequest(f"{where}: parts of type {kind!r} cannot be read here", param=where)


def _thought(item: Json, where: str) -> str:
    given = parts(item.get("content"), where) or parts(item.get("summary"), where)
    return "\n\n".join(text_of(part, where) for part in given)


def _call(item: Json, where: str, tools: Tools) -> Json:
    name = tools.shown_name(text_of(item, where, "name"), item.get("namespace"))
    if item["type"] == "custom_tool_call":
        arguments = msgspec.json.encode({"input": text_of(item, where, "input")}).decode()
    else:
        arguments = text_of(item, where, "arguments")
    id = text_of(item, where, "call_id")
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _output(item: Json, where: str) -> list[Json]:
    """A tool's result; its pictures follow as a user's, for tools can show none."""
    given = parts(item.get("output"), f"{where}.output")
    content: list[Json] = [_part(part, f"{where}.output[{i}]") for i, part in enumerate(given)]
    texts = [part for part in content if part["type"] == "text"]
    rest: list[Any] = [part for part in content if part["type"] != "text"]
    id = text_of(item, where, "call_id")
    messages: list[Json] = [{"role": "tool", "tool_call_id": id, "content": simplest(texts)}]
    return [*messages, {"role": "user", "content": rest}] if rest else messages
