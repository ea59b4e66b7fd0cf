"""A tool's arguments one by one, for the notations that write them so.

What the tool's schema asks of each goes with it. What it asks of all together (`oneOf`, `minProperties`,
…) such a notation cannot keep: a strict tool is then refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backends.serving.errors import RequestError, bad_request
from backends.serving.schemas import OPTIONS, Schema, parts, referred
from backends.serving.tools.bare import Unbound, is_text, lacking, text_term
from backends.serving.tools.calls import Tool, embedded

MAX_TEXT = 8 << 20  # characters of a grammar
_TOGETHER = (
    *("allOf", "anyOf", "oneOf", "not", "if", "enum", "const"),
    *("dependentRequired", "dependentSchemas", "dependencies", "propertyNames"),
    *("patternProperties", "$dynamicRef", "$recursiveRef"),
)
_BOUNDS = frozenset({"minLength", "maxLength", "pattern", "format", "allOf", "anyOf", "oneOf"})


@dataclass(frozen=True)
class Property:
    """One argument of a tool."""

    tool: Tool
    name: str
    schema: Schema  # complete in itself
    is_required: bool

    @cached_property
    def is_text(self) -> bool:
        """Whether its value is always a string, and so is written without quotes."""
        return is_text(self.schema, self.schema)

    def refused(self, reason: str) -> RequestError:
        """What a client is told whose strict tool cannot be kept to."""
        return _refused(f"{self.name} of {self.tool.name}", reason)


def _refused(what: str, reason: str) -> RequestError:
    words = f"tools: {what} cannot be bound in this model's notation of calls: {reason}"
    return bad_request(words, "tools")


def properties(tool: Tool) -> list[Property]:
    """The arguments of a tool: what must be there first, else in the schema's order."""
    schema = _shape(tool.schema)
    needed = [name for name in _list(schema, "required") if isinstance(name, str)]
    further = schema.get("additionalProperties", True)
    named: dict[str, object] = {**dict.fromkeys(needed, further), **_mapping(schema, "properties")}
    return [
        Property(tool, name, _complete(part, tool.schema), name in needed)
        for name, part in sorted(named.items(), key=lambda item: item[0] not in needed)
        if part is not False or name in needed
    ]


def bound_properties(tool: Tool) -> list[Property]:
    """As `properties`; raises RequestError where a strict tool asks for what they do not say."""
    found = properties(tool)
    if tool.is_strict and (reason := _unbound(_shape(tool.schema), found)):
        raise _refused(f"the schema of {tool.name}", reason)
    left = MAX_TEXT
    for given in found:  # definitions come with each that refers to them
        left -= len(json.dumps(given.schema))
        if left < 0:
            raise _refused(f"the schema of {tool.name}", "it is too large")
    return found


def _unbound(shape: Schema, found: list[Property]) -> str:
    for key in _TOGETHER:
        if key in shape:
            return f"{key} describes all arguments together"
    kinds = shape.get("type", "object")
    if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        return "its type must be object"
    if "$ref" in shape:
        return f"{shape['$ref']} is not found, or stands beside properties"
    num_needed = sum(given.is_required for given in found)
    if not _is_at_most(shape.get("minProperties", 0), num_needed):
        return "minProperties asks for more than is required"
    if not _is_at_most(len(found), shape.get("maxProperties", len(found))):
        return "maxProperties allows fewer than there are"
    for given in found:
        if given.is_required and given.schema.get("not") == {}:
            return f"{given.name} is required and can have no value"
    return ""


def _is_at_most(least: Any, most: Any) -> bool:
    try:
        return bool(least <= most)
    except TypeError:
        return False


def _shape(schema: Schema) -> Schema:
    """The schema that says what properties there are, behind references."""
    root, seen = schema, 0
    while "$ref" in schema and "properties" not in schema and seen < 10:
        found = referred(schema["$ref"], root)
        if not isinstance(found, Mapping):
            break
        schema, seen = found, seen + 1
    return schema


def _mapping(schema: Schema, key: str) -> Mapping[str, Any]:
    value = schema.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(schema: Schema, key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


# -- a part of a schema as one of its own ----------------------------------------------------------

_WHOLE = "whole schema"


def _complete(part: object, root: Schema) -> Schema:
    if part is False:
        return {"not": {}}
    schema = dict(part) if isinstance(part, Mapping) else {}
    definitions = _definitions(schema, root)
    if definitions is None:
        schema = _moved(schema)
        definitions = {"$defs": {_WHOLE: _moved(_without_options(root))}}
    around = {OPTIONS: root[OPTIONS]} if OPTIONS in root else {}
    return {**schema, **definitions, **around}


def _definitions(schema: Schema, root: Schema) -> dict[str, Any] | None:
    """What of the root's definitions the schema refers to; None where it refers to anything else."""
    found: dict[str, dict[str, Any]] = {}
    waiting: list[object] = [schema]
    while waiting:
        for reference in _references(waiting.pop()):
            _, key, name = [*reference.split("/", 2), "", ""][:3]
            name = name.partition("/")[0]
            if key not in ("$defs", "definitions") or name not in _mapping(root, key):
                return None
            if name not in found.setdefault(key, {}):
                found[key][name] = root[key][name]
                waiting.append(root[key][name])
    return dict(found)


def _references(schema: object) -> Iterator[str]:
    for part in parts(schema):
        if isinstance(reference := part.get("$ref"), str):
            yield reference


def _without_options(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != OPTIONS}


def _moved(value: Any) -> Any:
    """A schema whose references are to what is now inside the definitions."""
    if isinstance(value, list):
        return [_moved(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    moved = {key: _moved(item) for key, item in value.items()}
    if isinstance(reference := moved.get("$ref"), str) and reference.startswith("#"):
        moved["$ref"] = f"#/$defs/{_WHOLE}".replace(" ", "%20") + reference[1:]
    return moved


# -- grammars --------------------------------------------------------------------------------------


def json_rule(rule: str, given: Property) -> str:
    """`rule`: the value as JSON."""
    return f"{rule}: {embedded(given.schema)}"


def text_rules(rule: str, given: Property, without: str, closing: str) -> list[str]:
    """`rule`: the value as text in which `without` never stands, and behind it `closing`, an expression
    of Lark as Write gives it. Raises RequestError for a strict tool whose text cannot be bound."""
    is_strict = given.tool.is_strict
    try:
        term = text_term(given.schema, given.schema, without)
        if is_strict:
            _check_possible(given.schema)
    except Unbound as error:
        if is_strict:
            raise given.refused(str(error)) from None
        term = lacking(without)
    # What stands before a control token belongs to the terminal, which nothing else ends.
    before, control, after = closing.partition("<[")
    terminal = rule.upper()
    return [f"{rule}: {terminal} {control}{after}", f"{terminal}: ({term}) {before}"]


def _check_possible(schema: Schema) -> None:
    """A terminal that nothing matches would end answers in the middle."""
    if len(_BOUNDS & set(schema)) < 2 and "$ref" not in schema:
        return
    from llguidance import LLMatcher

    reason = LLMatcher.validate_grammar(f"start: {embedded(schema)}")
    if reason:
        raise Unbound(
            reason.partition("JSON schema: ")[2].partition("\n")[0] or "it is too complex"
        )
