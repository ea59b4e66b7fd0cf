"""JSON schemas as clients write them, made ready to be followed.

What is followed is never more than what the schema allows, so an answer always validates. It may be
less: an object whose properties are listed gets no others unless the schema asks for them, for nothing
would ever end a model's list of its own; and white space is bounded, for nothing would ever end that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from backends.serving.errors import bad_request
from backends.serving.patterns import FORMATS, PatternError, translated

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
_LEAST = frozenset({"minimum", "exclusiveMinimum"})
_BOUNDS = _LEAST | {"maximum", "exclusiveMaximum"}
EXACT = 1 << 53  # integers up to it are exact as the floating-point numbers that bounds are read as
_MOST = (1 << 63) - (1 << 10)  # the last such number that is no more than 64 bits
MAX_DEPTH = 100  # of schemas inside schemas


class _OutOfReach(Exception):
    """A bound that no number within reach can be told from."""


def prepared(schema: object, param: str, *, strict: bool) -> dict[str, Any]:
    """The schema to follow. With `strict`, what cannot be followed is an error later on; without,
    it is left out. Raises RequestError for what is no schema."""
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise bad_request(f"{param} must be an object", param)
    if any(depth > MAX_DEPTH for depth, _ in _parts(schema)):
        raise bad_request(f"{param} is nested too deeply", param)
    closes = not any(_is_scattered(part) for part in parts(schema))
    try:
        ready: dict[str, Any] = _prepared(schema, closes, False)
    except (PatternError, _OutOfReach) as error:
        raise bad_request(f"{param} cannot be followed: {error}", param) from None
    ready[OPTIONS] = {
        "whitespace_pattern": _SPACE,
        "lenient": not strict,
        "coerce_one_of": not strict,
    }
    return ready


def any_object() -> dict[str, Any]:
    """The schema of any JSON object."""
    return prepared({"type": "object"}, "", strict=True)


def parts(schema: object) -> Iterator[Schema]:
    """The schema and all those inside it."""
    return (part for _, part in _parts(schema))


def referred(reference: object, root: Schema) -> object:
    """What a `$ref` inside `root` refers to; None for what is not in it."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: object = root
    for name in unquote(reference).split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _parts(schema: object) -> Iterator[tuple[int, Schema]]:
    """Each schema, and how deep it lies; none beyond one level too many."""
    waiting = [(0, schema)]
    while waiting:
        depth, part = waiting.pop()
        if not isinstance(part, Mapping):
            continue
        yield depth, part
        if depth <= MAX_DEPTH:
            waiting += [(depth + 1, inner) for inner in _inside(part)]


def _inside(schema: Schema) -> Iterator[object]:
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            yield from value.values()
        elif key in _LISTED and isinstance(value, list):
            yield from value
        elif key in _SINGLE:
            yield value


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
            named = value.items()
            if key == "patternProperties":
                named = {translated(name): part for name, part in named}.items()
            ready[key] = {name: _prepared(part, closes, False) for name, part in named}
        elif key in _LISTED and isinstance(value, list):
            inside = has_parts and key != "prefixItems"
            ready[key] = [_prepared(part, closes, inside) for part in value]
        elif key in _SINGLE:
            ready[key] = _prepared(value, closes, False)
        elif key in _BOUNDS and isinstance(value, int) and abs(value) > EXACT:
            ready[key] = _rounded(value, upwards=key in _LEAST)
        elif key == "pattern" and isinstance(value, str):
            ready[key] = translated(value)
        elif key == "format":
            ready |= _format(value, "pattern" in schema)
        elif key != OPTIONS:
            ready[key] = value
    if closes and not is_part and _can_close(schema):
        ready["additionalProperties"] = False
    return ready


def _rounded(bound: int, *, upwards: bool) -> int:
    """The nearest bound that is exact and allows no more. Raises _OutOfReach."""
    if bound > _MOST if upwards else bound < -_MOST:
        raise _OutOfReach(f"{bound} is too close to the end of 64 bits")
    bound = max(-_MOST, min(bound, _MOST))
    near = int(float(bound))
    if near < bound and upwards:
        return int(math.nextafter(near, math.inf))
    if near > bound and not upwards:
        return int(math.nextafter(near, -math.inf))
    return near


def _format(form: object, has_pattern: bool) -> dict[str, str]:
    """Formats of other names are notes to the reader, as far as JSON Schema goes."""
    if not isinstance(form, str) or form not in FORMATS:
        return {}
    return {"format": form} if has_pattern else {"pattern": f"^(?:{FORMATS[form]})$"}


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
