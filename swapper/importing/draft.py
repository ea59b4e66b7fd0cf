"""A configuration before it is written: values in their order, with what has to be said beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import yaml

from swapper.config.problems import KeyPath
from swapper.config.schema import ENGINES
from swapper.config.units import format_duration

_PLAIN = re.compile(r"[A-Za-z0-9/~][A-Za-z0-9_./@+:-]*( [A-Za-z0-9_./@+()-]+)*")
_NUMBER = re.compile(r"[0-9_.:eE+-]+")  # to some reader of YAML or another
_WIDTH = 100


@dataclass(slots=True)
class DraftModel:
    """One model to be.

    `keys` are written as they stand. `notes` say what could not be carried over, `hints` what a person
    may like to know; both become comments. Without keys the whole model is a comment.
    """

    name: str
    keys: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Draft:
    """A configuration to be. `lines` are places in the source, by keys of the draft."""

    origin: str
    top: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    comments: dict[str, str] = field(default_factory=dict)  # of keys in `top`
    models: list[DraftModel] = field(default_factory=list)
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def left_out(self) -> Iterator[tuple[KeyPath, str]]:
        """All that could not be carried over, each with its place."""
        yield from (((), note) for note in self.notes)
        for model in self.models:
            yield from ((("models", model.name), note) for note in model.notes)


def put(model: DraftModel, key: str, value: object, *, called: str, otherwise: str) -> None:
    """Set the key where the model's engine knows it; else note it as what it is `called` there."""
    if key in ENGINES[str(model.keys["engine"])].model_fields:
        model.keys[key] = value
    else:
        model.notes.append(f"{called}: {flow(value)} ({otherwise})")


def render(draft: Draft) -> str:
    """The draft as YAML with comments."""
    lines = [f"# Made by `swapper import` from {_one_line(draft.origin)}.", ""]
    for note in draft.notes:
        lines += _comment(f"not carried over: {note}", "")
    if draft.notes:
        lines.append("")
    for key, value in draft.top.items():
        if key in draft.comments:
            lines += _comment(draft.comments[key], "")
        lines += _entry(key, value, "")
        lines.append("")
    lines.append("models:")
    for model in draft.models:
        lines += ["", *_model(model)]
    return "\n".join(lines) + "\n"


def render_model(model: DraftModel, indent: str = "  ", step: str = "  ") -> str:
    """One model as it stands under `models:`."""
    return "\n".join(_model(model, indent, step)) + "\n"


def _model(model: DraftModel, indent: str = "  ", step: str = "  ") -> list[str]:
    inner = indent + step
    if not model.keys:
        lines = [f"{indent}# {_one_line(model.name)}:"]
        for note in model.notes:
            lines += _comment(f"  not carried over: {note}", indent)
        return lines
    lines = [f"{indent}{scalar(model.name)}:"]
    for key, value in model.keys.items():
        lines += _entry(key, value, inner)
    for note in model.notes:
        lines += _comment(f"not carried over: {note}", inner)
    return lines + [f"{inner}# {_one_line(hint)}" for hint in model.hints]


def _entry(key: str, value: object, indent: str) -> list[str]:
    """A key and its value: on one line where it fits, else as a block."""
    if isinstance(value, str) and _is_block(value):
        lines = value.split("\n")
        return [f"{indent}{key}: |-", *(f"{indent}  {line}".rstrip() for line in lines)]
    short = f"{indent}{scalar(key)}: {flow(value)}"
    if isinstance(value, Mapping) and value and (len(short) > _WIDTH or _is_deep(value)):
        lines = [f"{indent}{scalar(key)}:"]
        for name, inner in value.items():
            lines += _entry(str(name), inner, indent + "  ")
        return lines
    if isinstance(value, list) and len(short) > _WIDTH:
        return [f"{indent}{scalar(key)}:", *(f"{indent}  - {flow(item)}" for item in value)]
    return [short]


def _is_block(text: str) -> bool:
    """Whether the text can be written line by line as it is."""
    plain = all(char in "\t\n" or char.isprintable() for char in text)
    return plain and "\n" in text and text == "\n".join(map(str.rstrip, text.strip().split("\n")))


def _is_deep(value: Mapping[str, object]) -> bool:
    return any(isinstance(inner, Mapping) for inner in value.values())


def flow(value: object) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, Mapping):
        parts = (f"{scalar(str(key))}: {flow(inner)}" for key, inner in value.items())
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: object) -> str:
    """A single value; text is quoted unless every reader takes it for what it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(value)
    text = str(value)
    is_plain = _PLAIN.fullmatch(text) and not _NUMBER.fullmatch(text) and not text.endswith(":")
    return text if is_plain and yaml.safe_load(text) == text else _quoted(text)


def _number(value: float) -> str:
    """A number that YAML 1.1 reads as one: it wants a point before an exponent."""
    text = repr(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _quoted(text: str) -> str:
    """In double quotes, whatever it holds."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char) or _visible(char) for char in text) + '"'


def _visible(char: str) -> str:
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def _comment(text: str, indent: str) -> list[str]:
    """Comment lines; what is too long is broken between words."""
    lines, rest = [], _one_line(text)
    room = _WIDTH - len(indent) - 2
    while len(rest) > room:
        cut = rest.rfind(" ", 20, room)
        cut = cut if cut > 0 else len(rest)
        lines.append(rest[:cut])
        rest = "  " + rest[cut:].strip() if rest[cut:].strip() else ""
    return [f"{indent}# {line}" for line in [*lines, rest] if line]


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def seconds(value: float) -> str | int:
    """A duration as the configuration wants it."""
    return 0 if value == 0 else format_duration(value)
