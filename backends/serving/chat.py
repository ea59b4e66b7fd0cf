"""Chat messages to the one prompt text that the model was trained on, by its own template."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from backends.serving.engine import ModelInfo
from backends.serving.errors import RequestError, bad_request
from backends.serving.requests import ChatRequest
from backends.serving.telling import told
from backends.serving.toolbox import shown_tools
from backends.serving.tools import HERMES, find_dialect

_CHATML = """\
{%- if tools %}
{{- '<|im_start|>system\\nYou may call these functions:\\n' }}
{%- for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}
{{- 'For each call, write <tool_call>{"name": ..., "arguments": {...}}</tool_call>.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + call.function | tojson + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_MARK = "CONTINUE_FINAL_MESSAGE_TAG "  # as in transformers: its space shows whether spaces are kept
_NINE = re.compile(r"id\s*\|\s*length\s*!=\s*9")
_REASONING = ("reasoning_content", "thinking", "reasoning")

Message = dict[str, Any]


def _source(info: ModelInfo) -> str:
    return info.chat_template or _CHATML


def chat_text(template: ChatTemplate, request: ChatRequest) -> str:
    """The prompt of a chat request."""
    extra = dict(request.chat_template_kwargs or {})
    effort, thinks = request.reasoning_effort, request.enable_thinking
    if effort is not None:
        extra.setdefault("reasoning_effort", effort)
        thinks = effort != "none" if thinks is None else thinks
    if thinks is not None:  # templates know it by either name
        extra.setdefault("enable_thinking", thinks)
        extra.setdefault("thinking", thinks)
    if request.documents is not None:
        extra.setdefault("documents", request.documents)
    tools = shown_tools(request)
    if request.continue_final_message:
        _check_continued(request)
        return template.render(request.messages, tools, extra, is_continued=True)
    if request.add_generation_prompt is False:
        extra["add_generation_prompt"] = False
    return template.render(request.messages, tools, extra)


def _check_continued(request: ChatRequest) -> None:
    name = "continue_final_message"
    if request.add_generation_prompt:
        raise bad_request(f"{name} and add_generation_prompt cannot both be true", name)
    last = request.messages[-1] if request.messages else {}
    if last.get("role") != "assistant" or last.get("content") is None:
        raise bad_request(f"{name} needs a last message of the assistant, with content", name)
    if last.get("tool_calls"):
        raise bad_request(f"{name}: a message that calls tools is complete", name)


def continued_text(request: ChatRequest) -> str | None:
    """What the client has begun of the answer; None where it begins none. A part of `chat_text`."""
    if not request.continue_final_message:
        return None
    return _text(request.messages[-1]["content"], "messages")


class ChatTemplate:
    """A model's chat template, compiled once; ChatML where the model has none."""

    def __init__(self, info: ModelInfo) -> None:
        self._source = _source(info)
        found = find_dialect(self._source)
        self._shows_tools = found.calls is not None
        # A model that was never taught to call tools is told how, in words.
        self.dialect = found if self._shows_tools else replace(found, calls=HERMES)
        self._tokens = {
            **info.special,
            "bos_token": info.bos_token,
            "eos_token": info.eos_token,
        }
        try:
            self._template = _environment().from_string(self._source)
        except TemplateError as error:
            raise RequestError(
                500,
                f"The chat template of {info.name} cannot be read: {error}.",
                type="server_error",
                code="bad_chat_template",
            ) from error

    @property
    def shows_tools(self) -> bool:
        """Whether the template itself shows the model the tools it is given, and its own calls."""
        return self._shows_tools

    @property
    def _has_system(self) -> bool:
        return "system" in self._source and "System role not supported" not in self._source

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
        *,
        is_continued: bool = False,
    ) -> str:
        """The prompt up to where the assistant's answer begins, or where the last message ends with its
        turn still open (as `apply_chat_template(continue_final_message=True)` of transformers)."""
        prepared = self._prepared(messages)
        if _NINE.search(self._source):
            prepared = [_with_short_ids(message) for message in prepared]
        if not self._shows_tools:
            prepared, tools = told(prepared, tools or (), self._has_system), None
        if is_continued:
            prepared = [*prepared[:-1], _marked(prepared[-1])]
        values = {
            **self._tokens,
            "messages": prepared,
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": not is_continued,
            **(extra or {}),
        }
        text = self._rendered(values)
        return _up_to_mark(text) if is_continued else text

    def _rendered(self, values: Mapping[str, Any]) -> str:
        try:
            return self._template.render(values)
        except TemplateError as error:
            raise bad_request(f"The chat template refuses this: {error}", "messages") from error
        except Exception as error:
            raise bad_request(
                f"The chat template fails on these messages ({type(error).__name__}: {error})",
                "messages",
            ) from error

    def _prepared(self, messages: Sequence[Message]) -> list[Message]:
        if not messages:
            raise bad_request("messages is empty; at least one message is needed", "messages")
        keeps_developer = "developer" in self._source
        return [
            _prepared(message, f"messages[{index}]", keeps_developer)
            for index, message in enumerate(messages)
        ]


def _prepared(message: Message, where: str, keeps_developer: bool) -> Message:
    """A message as templates expect it: content as one text, arguments of calls as objects."""
    role = message.get("role")
    if role not in _ROLES:
        raise bad_request(f"{where}.role must be one of {', '.join(sorted(_ROLES))}", where)
    if role == "developer" and not keeps_developer:
        role = "system"
    prepared = {key: value for key, value in message.items() if value is not None}
    prepared["role"] = role
    prepared["content"] = _text(message.get("content"), f"{where}.content")
    reasoning = next((prepared[key] for key in _REASONING if key in prepared), None)
    if reasoning is not None:  # templates know it by the first name, those of gpt-oss by the second
        prepared["reasoning_content"] = reasoning
        prepared.setdefault("thinking", reasoning)
    if "tool_calls" in prepared:
        prepared["tool_calls"] = _calls(prepared["tool_calls"], f"{where}.tool_calls")
        if not prepared["tool_calls"]:
            del prepared["tool_calls"]
    return prepared


def _marked(message: Message) -> Message:
    return {**message, "content": message["content"] + _MARK}


def _up_to_mark(text: str) -> str:
    """Where the template cuts white space off messages, the mark's own space is gone, and what stands
    before the mark is cut likewise."""
    place = text.rfind(_MARK.rstrip())
    if place < 0:
        raise bad_request("The chat template leaves out the message to go on with", "messages")
    return text[:place] if text.startswith(_MARK, place) else text[:place].rstrip()


def _with_short_ids(message: Message) -> Message:
    """Mistral's templates refuse ids that another model, or the client, has made up."""
    changed = dict(message)
    if isinstance(changed.get("tool_call_id"), str):
        changed["tool_call_id"] = _short_id(changed["tool_call_id"])
    if "tool_calls" in changed:
        calls = changed["tool_calls"]
        changed["tool_calls"] = [{**call, "id": _short_id(str(call.get("id")))} for call in calls]
    return changed


def _short_id(given: str) -> str:
    if len(given) == 9 and given.isalnum():
        return given
    return hashlib.blake2b(given.encode("utf-8", "replace"), digest_size=5).hexdigest()[:9]


def _text(content: object, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad_request(f"{where} must be a string or a list of parts", where)
    return "\n".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: object, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "input_image", "image"):
        raise bad_request("This model has no vision: it cannot read images", where)
    if kind not in ("text", "refusal", "input_text"):
        raise bad_request(f"{where}: only parts of type text can be read by this model", where)
    assert isinstance(part, dict)
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise bad_request(f"{where}.text must be a string", where)
    return text


def _calls(calls: object, where: str) -> list[Message]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise bad_request(f"{where} must be a list of objects", where)
    return [_call(call, f"{where}[{index}]") for index, call in enumerate(calls)]


def _call(call: Message, where: str) -> Message:
    function = call.get("function")
    if not isinstance(function, dict):
        raise bad_request(f"{where}.function must be an object", where)
    return {**call, "function": {**function, "arguments": _arguments(function.get("arguments"))}}


def _arguments(arguments: object) -> object:
    """Templates print arguments as JSON: a string of JSON would come out quoted twice."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        parsed = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments  # what a model once wrote wrongly must not make the conversation unusable
    return parsed if isinstance(parsed, dict) else arguments


def _environment() -> ImmutableSandboxedEnvironment:
    """The dialect of Jinja that chat templates are written in.

    A template comes with a model file that anybody may have made, so it runs in a sandbox.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["dict"] = lambda *given, **named: dict(*given, **named)  # not the class
    environment.globals["namespace"] = _namespace
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 - the user's day
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON. Jinja's own filter escapes <, > and & for HTML, which models never saw."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


class _Namespace(Namespace):
    """Jinja's namespace, without names that reach into Python."""

    def __setitem__(self, name: str, value: object) -> None:
        _check_public(name)
        super().__setitem__(name, value)


def _namespace(*given: Any, **named: Any) -> _Namespace:
    values = dict(*given, **named)
    for name in values:
        _check_public(name)
    return _Namespace(values)


def _check_public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name like {name!r}")


class _Generation(Extension):
    """`{% generation %}` marks the assistant's own words for training; for serving it is nothing."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as a plain class attribute

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
