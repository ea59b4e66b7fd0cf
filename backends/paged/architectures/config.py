"""config.json, read with care: every value has its type, and what is missing or odd is said by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.serving.engine import EngineError

MAX_INTEGER = 1 << 24  # so that no product of a few of them overflows
MAX_NUMBER = 1e30


class Config:
    """The values of one config.json. A value that is null is read as if it were absent."""

    def __init__(self, values: Mapping[str, Any], name: str = "config.json") -> None:
        self._values = values
        self.name = name

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer (or the default, whatever it is)."""
        value = self._get(key, default)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not (value > 0 or value == default):
            raise self.wrong(key, "a positive integer")
        if value > MAX_INTEGER:
            raise self.wrong(key, f"at most {MAX_INTEGER}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if type(value) not in (int, float) or not -MAX_NUMBER < value < MAX_NUMBER:
            raise self.wrong(key, "a number")
        return float(value)

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above nought."""
        value = self.number(key, default)
        if value < 1 / MAX_NUMBER:
            raise self.wrong(key, "a number above nought")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._get(key, default)
        if type(value) is not bool:
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if type(value) is not str:
            raise self.wrong(key, "a string")
        return value

    def array(self, key: str, default: list[Any] | None = None) -> list[Any]:
        value = self._get(key, default)
        if type(value) is not list:
            raise self.wrong(key, "a list")
        return value

    def nested(self, key: str) -> Config:
        """The object at `key`, or an empty one."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Config(value, f"{self.name}: {key}")

    def over(self, defaults: Mapping[str, Any]) -> Config:
        """These values, and `defaults` where they have none; null stays null."""
        return Config({**defaults, **self._values}, self.name)

    def but(self, **values: Any) -> Config:
        """These values, but for some."""
        return Config({**self._values, **values}, self.name)

    def as_dict(self) -> dict[str, Any]:
        return dict(self._values)

    def choice(self, key: str, choices: Mapping[str, Any], default: str | None = None) -> Any:
        """What `choices` has for the value; raises `unsupported` where it has nothing."""
        value = self.text(key, default)
        if value not in choices:
            what = ", ".join(sorted(choices))
            reason = f"{self.name}: {key} {value!r} is not supported; supported are {what}"
            raise EngineError("unsupported", reason)
        return choices[value]

    def wrong(self, key: str, expected: str) -> EngineError:
        if key not in self:
            return EngineError("bad_file", f"{self.name} lacks {key}, {expected}")
        shown = repr(self._values[key])[:60]
        return EngineError("bad_file", f"{self.name}: {key} is {shown}, not {expected}")

    def _get(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        return default if value is None else value
