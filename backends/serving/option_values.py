"""Reads a worker's options one by one; a value that makes no sense is an error that names its key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from backends.serving.engine import EngineError

Value = TypeVar("Value")


class OptionReader:
    """Reads one key after another; a value's complaint becomes the option's."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def __call__(self, key: str, convert: Callable[[Any], Any], default: Any) -> Any:
        """What `convert` makes of the value, `default` where there is none.

        `convert` raises ValueError with what the value should be; out comes EngineError `bad_options`.
        """
        value = self._raw.get(key)
        if value is None:
            return default
        try:
            return convert(value)
        except ValueError as error:
            raise EngineError("bad_options", f"{key}: {value!r} is not {error}") from None

    def path(self, meaning: str) -> str:
        """Where the model is; raises EngineError when that is not said."""
        path = self._raw.get("path")
        if not isinstance(path, str) or not path:
            raise EngineError("bad_options", f"path: {meaning} is missing")
        return path


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def whole(low: int, high: int | None = None, *, auto: int | None = None) -> Callable[[Any], int]:
    """A whole number in a range; `auto`, where it may be said, is that number."""
    meaning = f"a whole number from {low}" + (f" to {high}" if high else "")

    def convert(value: Any) -> int:
        if value == "auto" and auto is not None:
            return auto
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(meaning)
        if value < low or (high is not None and value > high):
            raise ValueError(meaning)
        return value

    return convert


def one_of(values: Mapping[str, Value] | Iterable[str]) -> Callable[[Any], Any]:
    """One of some words, or what each of them stands for."""
    meanings = dict(values) if isinstance(values, Mapping) else {word: word for word in values}

    def convert(value: Any) -> Any:
        if not isinstance(value, str) or value not in meanings:
            raise ValueError(f"one of {', '.join(meanings)}")
        return meanings[value]

    return convert


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def number(value: Any) -> float:
    """Any number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number")
    return float(value)


def names(value: Any) -> tuple[str, ...]:
    """A list of names."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of names")
    return tuple(value)
