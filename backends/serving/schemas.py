"""JSON schemas as clients write them, made ready to be followed.

What is followed is never more than what the schema allows, so an answer always validates. It may be
less: an object whose properties are listed gets no others unless the schema asks for them, for nothing
would ever end a model's list of its own; and white space is bounded, for nothing would ever end that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backends.serving.errors import bad_request

Schema = Mapping[str, Any]

_SPACE = r"( |\n{1,2}[ \t]{0,20})"
OPTIONS = "x-guidance"  # the key under which llguidance reads how to follow a schema

_NAMED = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)  # keys that hold schemas by name
_LISTED = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SINGLE = frozenset(
    {"items", "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else"}
    | {"propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema"}
)
# Where one of these stands, an object may be described in several places at once.
_SCATTERED = frozenset(
    {"allOf", "if", "not", "dependentSchemas", "unevaluatedProperties", "$dynamicRef"}
)
_OPEN = frozenset({"additionalProperties", "patternProperties", "minProperties"})
_PARTS = frozenset({"anyOf", "oneOf", "$ref"})
# Others are notes to the reader, as far as JSON Schema goes, and are not followed.
_FORMATS = frozenset(
    {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)


def prepared(schema: object, param: str, *, strict: bool) -> dict[str, Any]:
    """The schema to follow. With `strict`, what cannot be followed is an error later on; without,
    it is left out. Raises RequestError for what is no schema."""
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise bad_request(f"{param} must be an object", param)
    try:
        closes = not any(_is_scattered(part) for part in _parts(schema))
        ready: dict[str, Any] = _prepared(schema, closes, False)
    except RecursionError:
        raise bad_request(f"{param} is nested too deeply", param) from None
    ready[OPTIONS] = {
        "whitespace_pattern": _SPACE,
        "lenient": not strict,
        "coerce_one_of": not strict,
    }
    return ready


def any_object() -> dict[str, Any]:
    """The schema of any JSON object."""
    return prepared({"type": "object"}, "", strict=True)


def _parts(schema: object) -> Iterator[Schema]:
    """The schema and all those inside it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            for part in value.values():
                yield from _parts(part)
        elif key in _LISTED and isinstance(value, list):
            for part in value:
                yield from _parts(part)
        elif key in _SINGLE:
            yield from _parts(value)


def _is_scattered(schema: Schema) -> bool:
    return not _SCATTERED.isdisjoint(schema) or ("$ref" in schema and "properties" in schema)


def _prepared(schema: Any, closes: bool, is_part: bool) -> Any:
    """`is_part`: what stands around this schema describes the same object."""
    if not isinstance(schema, Mapping):
        return schema
    ready: dict[str, Any] = {}
    has_parts = is_part or "properties" in schema
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            ready[key] = {name: _prepared(part, closes, False) for name, part in value.items()}
        elif key in _LISTED and isinstance(value, list):
            inside = has_parts and key != "prefixItems"
            ready[key] = [_prepared(part, closes, inside) for part in value]
        elif key in _SINGLE:
            ready[key] = _prepared(value, closes, False)
        elif key != OPTIONS and not (key == "format" and not _is_followed(value)):
            ready[key] = value
    if closes and not is_part and _can_close(schema):
        ready["additionalProperties"] = False
    return ready


def _is_followed(form: object) -> bool:
    return isinstance(form, str) and form in _FORMATS


def _can_close(schema: Schema) -> bool:
    properties = schema.get("properties")
    required = schema.get("required", [])
    return (
        isinstance(properties, Mapping)
        and _OPEN.isdisjoint(schema)
        and _PARTS.isdisjoint(schema)
        and isinstance(required, list)
        and all(isinstance(name, str) and name in properties for name in required)
    )
