"""What is wrong with a configuration, and where: all of it at once, each with its line and key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from swapper.errors import ConfigError

KeyPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or (as a warning) that somebody should know.

    `model` is set where it concerns this one model only, and the others can be served.
    """

    file: str
    line: int | None
    key: str
    text: str
    model: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


def dotted(path: KeyPath) -> str:
    """A key as a person would name it: `models.coder.lora[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def raise_if_any(problems: Iterable[Problem]) -> None:
    """Raise one ConfigError that names every problem, in the order of the file."""
    found = sorted(set(problems), key=lambda problem: (problem.line or 0, problem.key))
    if found:
        raise ConfigError("\n".join(map(str, found)))
