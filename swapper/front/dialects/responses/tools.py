"""Tools of a response as functions of a chat, and calls of those functions back as calls of the tools.

A namespace's functions get names of their own, and a tool that takes free text becomes a function with
one string. What OpenAI's servers would have to run is not offered to the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Json
from swapper.front.dialects.reading import objects, text_of

FREE_TEXT: Json = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the client knows it."""

    name: str
    namespace: str | None = None
    is_custom: bool = False  # takes free text


@dataclass(slots=True)
class Tools:
    """All tools of a request, by the names that the model is shown."""

    functions: list[Json] = field(default_factory=list)
    by_name: dict[str, Tool] = field(default_factory=dict)

    def tool(self, name: str) -> Tool:
        """What a call by that name is a call of."""
        return self.by_name.get(name) or Tool(name)

    def shown_name(self, name: str, namespace: str | None) -> str:
        """The name that the model knows a tool by."""
        for shown, tool in self.by_name.items():
            if (tool.name, tool.namespace) == (name, namespace):
                return shown
        return f"{namespace}__{name}" if namespace else name


def read_tools(given: list[Json]) -> Tools:
    """The tools that can be shown to a model; raises BadRequest."""
    tools = Tools()
    for shown, tool, function in _flat(given):
        if shown not in tools.by_name:
            tools.by_name[shown] = tool
            tools.functions.append({"type": "function", "function": {"name": shown, **function}})
    return tools


def _flat(given: list[Json]) -> Iterator[tuple[str, Tool, Json]]:
    for index, tool in enumerate(given):
        where = f"tools[{index}]"
        match tool.get("type"):
            case "function":
                name = text_of(tool, where, "name")
                yield name, Tool(name), _function(tool)
            case "custom":
                name = text_of(tool, where, "name")
                yield name, Tool(name, is_custom=True), _custom(tool)
            case "namespace":
                namespace = text_of(tool, where, "name")
                for inner in objects(tool.get("tools"), f"{where}.tools"):
                    name = text_of(inner, where, "name")
                    is_custom = inner.get("type") == "custom"
                    function = _custom(inner) if is_custom else _function(inner)
                    yield f"{namespace}__{name}", Tool(name, namespace, is_custom), function


def _function(tool: Json) -> Json:
    function: Json = {"parameters": tool.get("parameters") or {"type": "object", "properties": {}}}
    for key in ("description", "strict"):
        if tool.get(key) is not None:
            function[key] = tool[key]
    return function


def _custom(tool: Json) -> Json:
    form = tool.get("format")
    lines = [str(tool.get("description") or "")]
    if isinstance(form, dict) and form.get("type") == "grammar":
        lines.append(
            f"The input follows this {form.get('syntax')} grammar:\n{form.get('definition')}"
        )
    return {"description": "\n\n".join(filter(None, lines)), "parameters": FREE_TEXT}


def read_choice(choice: str | Json | None, tools: Tools) -> Json:
    """The fields of a chat's body that say which tools to call; raises BadRequest."""
    if choice is None or not tools.functions:
        if isinstance(choice, dict) or choice == "required":
            raise BadRequest("tool_choice: there is no such tool here", param="tool_choice")
        return {}
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise BadRequest("tool_choice must be auto, none or required", param="tool_choice")
        return {"tool_choice": choice}
    match choice.get("type"):
        case "function" | "custom":
            return {"tool_choice": _named(choice, tools)}
        case "allowed_tools":
            allowed = objects(choice.get("tools"), "tool_choice.tools")
            names = {_named(tool, tools)["function"]["name"] for tool in allowed}
            shown = [tool for tool in tools.functions if tool["function"]["name"] in names]
            return {"tools": shown, "tool_choice": choice.get("mode") or "auto"}
    raise BadRequest(
        f"tool_choice: a tool of type {choice.get('type')!r} cannot be run here",
        param="tool_choice",
    )


def _named(choice: Json, tools: Tools) -> Json:
    name = text_of(choice, "tool_choice", "name")
    shown = tools.shown_name(name, choice.get("namespace"))
    if shown not in tools.by_name:
        raise BadRequest(f"tool_choice: there is no tool '{name}'", param="tool_choice")
    return {"type": "function", "function": {"name": shown}}
