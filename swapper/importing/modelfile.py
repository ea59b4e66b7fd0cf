"""Ollama's Modelfile: what a model is made from, and with what parameters."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from swapper.errors import ConfigError

_LINE = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)
_KNOWN = {
    "FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES",
}  # fmt: skip
_SEVERAL = ("stop",)  # parameters that may come more than once


@dataclass(slots=True)
class Modelfile:
    """One Modelfile. `messages` are pairs of role and text."""

    base: str = ""
    parameters: dict[str, object] = field(default_factory=dict)
    system: str | None = None
    adapters: list[str] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    license: str | None = None


def parse_modelfile(text: str, file: str) -> Modelfile:
    """Read a Modelfile; raises ConfigError that names the line."""
    found = Modelfile()
    for number, name, value in _commands(text, file):
        _apply(found, name, value, f"{file}:{number}")
    if not found.base:
        raise ConfigError(f"{file}: FROM is missing; it names a GGUF file or a model")
    return found


def _commands(text: str, file: str) -> list[tuple[int, str, str]]:
    """Line, command and value; what stands between triple quotes may have many lines."""
    commands, lines, number = [], text.splitlines(), 0
    while number < len(lines):
        start, line = number + 1, lines[number]
        number += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1].upper() not in _KNOWN:
            raise ConfigError(f"{file}:{start}: '{line.strip()[:40]}' is no command of a Modelfile")
        value = match[2]
        while value.count('"""') == 1:
            if number == len(lines):
                raise ConfigError(f'{file}:{start}: the text has no end; """ is missing')
            value += "\n" + lines[number]
            number += 1
        commands.append((start, match[1].upper(), value))
    return commands


def _apply(found: Modelfile, name: str, value: str, place: str) -> None:
    match name:
        case "FROM":
            found.base = _text(value)
        case "PARAMETER":
            key, _, given = value.strip().partition(" ")
            if not given.strip():
                raise ConfigError(f"{place}: PARAMETER {key} has no value")
            _add_parameter(found, key.lower(), _value(given))
        case "SYSTEM":
            found.system = _text(value) or None
        case "ADAPTER":
            found.adapters.append(_text(value))
        case "LICENSE":
            found.license = _text(value)
        case "MESSAGE":
            role, _, said = value.strip().partition(" ")
            found.messages.append((role, _text(said)))
        case "TEMPLATE":
            raise ConfigError(
                f"{place}: TEMPLATE is a Go template, which only Ollama can render; chats are laid out by "
                "the template in the model file itself, so leave TEMPLATE out"
            )


def _add_parameter(found: Modelfile, key: str, value: object) -> None:
    if key in _SEVERAL:
        before = found.parameters.get(key)
        found.parameters[key] = [*(before if isinstance(before, list) else []), str(value)]
    else:
        found.parameters[key] = value


def _text(value: str) -> str:
    """Without the quotes around it."""
    value = value.strip()
    for quotes in ('"""', '"'):
        if len(value) >= 2 * len(quotes) and value.startswith(quotes) and value.endswith(quotes):
            return value[len(quotes) : -len(quotes)].strip()
    return value


def _value(text: str) -> object:
    """A number or a truth where it is one; else text."""
    text = text.strip()
    if text.startswith('"'):
        try:
            return json.loads(text)
        except ValueError:
            return _text(text)
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return {"true": True, "false": False}.get(text.lower(), text)
