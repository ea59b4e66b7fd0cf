"""The tools of a chat request: which the model is shown, which it must call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.serving import schemas
from backends.serving.errors import bad_request
from backends.serving.requests import ChatRequest
from backends.serving.tools import Tool, Tools

_NAME = re.compile(r"""[^\s\x00-\x1f"'`<>{}()\[\]|=]+""")  # no notation writes others


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What is asked of the model with its tools."""

    shown: Tools = ()  # what it may call
    forced: Tools = ()  # one of these it must call
    is_single: bool = False  # no more than one call

    @property
    def is_strict(self) -> bool:
        """Whether a call must follow its schema even where none is forced."""
        return any(tool.is_strict for tool in self.shown)


def shown_tools(request: ChatRequest) -> list[dict[str, Any]]:
    """The tools as the client described them, for the template; none where none may be called."""
    return [] if request.tool_choice == "none" else list(request.tools or [])


def read_toolbox(request: ChatRequest) -> Toolbox:
    """What the request's fields mean together. Raises RequestError."""
    choice = request.tool_choice
    if not request.tools:
        if choice in (None, "none", "auto"):
            return Toolbox()
        raise bad_request("tool_choice is given without tools", "tool_choice")
    tools = tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(shown_tools(request)))
    is_single = request.parallel_tool_calls is False
    if choice in (None, "none", "auto"):
        return Toolbox(tools, (), is_single)
    if choice == "required":
        return Toolbox(tools, tools, is_single)
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return _allowed(tools, choice, is_single)
    return Toolbox(tools, (_named(tools, choice),), True)


def _tool(given: Mapping[str, Any], where: str) -> Tool:
    kind = given.get("type", "function")
    if kind != "function":
        raise bad_request(f"{where}.type must be function; it is {kind}", f"{where}.type")
    function = given.get("function")
    if not isinstance(function, Mapping):
        raise bad_request(f"{where}.function must be an object", f"{where}.function")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise bad_request(f"{where}.function.name must be a string", f"{where}.function.name")
    if not _NAME.fullmatch(name):
        words = "may not hold white space, quotes or any of <>{}[]()|="
        raise bad_request(f"{where}.function.name {words}", f"{where}.function.name")
    is_strict = function.get("strict") is True
    schema = function.get("parameters")
    param = f"{where}.function.parameters"
    if schema is None or schema is True:
        schema = {}
    if isinstance(schema, Mapping):  # arguments are always an object, whatever the schema forgets
        kinds = schema.get("type", "object")
        if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
            raise bad_request(f"{param}.type must be object", param)
        schema = {**({} if schema else {"properties": {}}), **schema, "type": "object"}
    return Tool(name, schemas.prepared(schema, param, strict=is_strict), is_strict)


def _allowed(tools: Tools, choice: Mapping[str, Any], is_single: bool) -> Toolbox:
    given = choice.get("allowed_tools", choice)
    listed = given.get("tools") if isinstance(given, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise bad_request("tool_choice.allowed_tools.tools must be a list of tools", "tool_choice")
    allowed = tuple(_named(tools, one) for one in listed)
    return Toolbox(allowed, allowed if given.get("mode") == "required" else (), is_single)


def _named(tools: Tools, choice: object) -> Tool:
    function = choice.get("function", choice) if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise bad_request(
            "tool_choice must be auto, none, required or name a function", "tool_choice"
        )
    for tool in tools:
        if tool.name == name:
            return tool
    raise bad_request(f"tool_choice names {name}, which is not among the tools", "tool_choice")
