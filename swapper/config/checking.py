"""Checked values from a document: pydantic's findings, told in the words of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from swapper.config.document import Document
from swapper.config.problems import KeyPath, Problem, raise_if_any
from swapper.config.schema import (
    ENGINES,
    AliasEntry,
    ApiKeyEntry,
    ConfigFile,
    DefaultsSection,
    GroupSection,
    Lora,
    MemorySection,
    engine_of,
)
from swapper.core.registry import nearest

_SAYINGS = {
    "missing": "is missing",
    "string_type": "must be text; quote it if the text is meant",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
}


def check(document: Document) -> ConfigFile:
    """The document's values, checked; raises ConfigError with every problem found."""
    try:
        checked = ConfigFile.model_validate(document.value)
    except ValidationError as error:
        found = [_problem(document, detail) for detail in error.errors(include_url=False)]
        unread = {problem.key for problem in document.problems}
        found = [problem for problem in found if problem.key not in unread]
        raise_if_any([*document.problems, *found])
        raise  # unreachable: where a value is wrong, something was found
    raise_if_any(document.problems)
    return checked


def _problem(document: Document, detail: ErrorDetails) -> Problem:
    path = _path(detail["loc"])
    if detail["type"] == "union_tag_not_found":
        typed = nearest("engine", map(str, detail["input"]))
        if typed is not None:
            return document.problem((*path, typed), "is not known; did you mean 'engine'?")
    return document.problem(path, _saying(document, detail, path))


def _path(loc: KeyPath) -> KeyPath:
    """The key's place in the file: pydantic puts the engine between a model and its keys."""
    return (*loc[:2], *loc[3:]) if loc[0:1] == ("models",) else loc


def _saying(document: Document, detail: ErrorDetails, path: KeyPath) -> str:
    kind = detail["type"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    match kind:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return _unknown_key(document, path)
        case "union_tag_not_found":
            return f"needs an engine: one of {', '.join(ENGINES)}"
        case "union_tag_invalid":
            return _unknown_engine(str(context["tag"]))
        case "literal_error":
            return f"must be {context['expected']}"
        case "greater_than_equal":
            return f"must be {context['ge']} or more"
        case "too_short":
            return "must not be empty"
    return _SAYINGS.get(kind, detail["msg"])


def _unknown_engine(engine: str) -> str:
    near = nearest(engine, ENGINES)
    hint = f"; did you mean '{near}'?" if near else f"; there are {', '.join(ENGINES)}"
    return f"engine '{engine}' is not known{hint}"


def _unknown_key(document: Document, path: KeyPath) -> str:
    key = str(path[-1])
    section = _section(document, path[:-1])
    owners = [name for name, engine in ENGINES.items() if key in engine.model_fields]
    if path[0] == "models" and len(path) == 3 and owners:
        plural = "s" if len(owners) > 1 else ""
        return f"belongs to engine{plural} {', '.join(owners)}, not to {_engine(document, path)}"
    near = nearest(key, section.model_fields)
    return "is not known" + (f"; did you mean '{near}'?" if near else "")


def _engine(document: Document, path: KeyPath) -> str:
    """The engine of the model that `path` leads into."""
    value: Any = document.value
    return str(engine_of(value["models"][path[1]]))


def _section(document: Document, path: KeyPath) -> type[BaseModel]:
    """The kind of section at `path`, which holds a key that is not known."""
    match path:
        case ("api_keys", _):
            return ApiKeyEntry
        case ("memory",):
            return MemorySection
        case ("groups", _):
            return GroupSection
        case ("defaults",):
            return DefaultsSection
        case ("models", _, "lora", _):
            return Lora
        case ("models", _, "aliases", _):
            return AliasEntry
        case ("models", _, *_):
            return ENGINES[_engine(document, path)]
    return ConfigFile
