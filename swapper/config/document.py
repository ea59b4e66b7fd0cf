"""YAML text to plain values, with the line of every key, and without YAML's surprises.

YAML 1.1 reads `no` as false, `010` as 8 and `1:30` as 90. Whoever writes these means something else,
so they are errors here that say what to quote. `${env:NAME}` and `${credential:NAME}` are filled in, last, in values only:
a variable holds is never read as YAML, and in a command line never split into words.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from swapper.config.problems import KeyPath, Problem, dotted
from swapper.errors import ConfigError

_FROM_OUTSIDE = re.compile(r"\$\{(env|credential):([^}]*)\}")
_CREDENTIALS = "CREDENTIALS_DIRECTORY"  # where systemd puts what LoadCredential= names
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_COMMAND_LINES = ("cmd", "stop_cmd")  # split into words here, before variables are filled in
_MERGE = "tag:yaml.org,2002:merge"
_QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # fifteen times as quick, where it was built


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration as plain values: dicts with string keys, lists and scalars.

    `problems` are the places that could not be read; nothing stands there.
    """

    file: str
    value: object
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...] = ()

    def line_of(self, path: KeyPath) -> int | None:
        """The line of a key, or of the nearest key above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def problem(self, path: KeyPath, text: str, model: str | None = None) -> Problem:
        """A problem with the key at `path`."""
        return Problem(self.file, self.line_of(path), dotted(path), text, model)


def read_document(text: str, file: str, environ: Mapping[str, str]) -> Document:
    """Read YAML; raises ConfigError if it is not YAML, or nothing at all."""
    node = _compose(text, file)
    if node is None:
        raise ConfigError(f"{file}: the file is empty; give at least one model under `models:`")
    reader = _Reader(file, environ)
    value = reader.read(node, ())
    return Document(file, value, reader.lines, tuple(reader.problems))


def _compose(text: str, file: str) -> Node | None:
    with contextlib.suppress(yaml.YAMLError):  # what is wrong, the slow one says better
        return yaml.compose(text, Loader=_QUICK)
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.problem, error.context) if part)
        line = mark.line if mark else 0
        hint = _syntax_hint(what, text.splitlines()[line : line + 1])
        raise ConfigError(f"{file}:{line + 1}: {what}{hint}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None


def _syntax_hint(what: str, lines: list[str]) -> str:
    """What is most often the matter, where YAML only says that it did not expect it."""
    if "\\t" in what:
        return "; indent with spaces"
    if any("${" in line for line in lines):
        return '; quote what holds ${...}: "${env:NAME}"'
    return ""


class _Reader:
    """One pass over the nodes; gathers problems instead of stopping at the first."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self.file = file
        self.environ = environ
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()  # nodes being read: an anchor may hold itself

    def read(self, node: Node, path: KeyPath) -> object:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            return self._problem(node, path, "an anchor must not hold itself")
        self._open.add(id(node))
        try:
            return self._collection(node, path)
        finally:
            self._open.remove(id(node))

    def _collection(self, node: Node, path: KeyPath) -> object:
        if isinstance(node, SequenceNode) and node.tag.endswith(":seq"):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, MappingNode) and node.tag.endswith(":map"):
            return self._mapping(node, path)
        return self._problem(node, path, f"the tag {node.tag} has no meaning here")

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, object]:
        result: dict[str, object] = {}
        own: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None or key_node.tag == _MERGE:
                continue
            line = key_node.start_mark.line + 1
            if key in own:
                self._problem(key_node, (*path, key), f"set twice, first in line {own[key]}")
                continue
            own[key] = self.lines[*path, key] = line
            result[key] = self.read(value_node, (*path, key))
        return {**self._merged(node, path, own), **result}

    def _key(self, node: Node, path: KeyPath) -> str | None:
        if node.tag == _MERGE:
            return "<<"
        if isinstance(node, ScalarNode) and node.tag.endswith(":str"):
            return str(node.value)
        text = node.value if isinstance(node, ScalarNode) else "a list or mapping"
        self._problem(node, path, f"the key {text} is not text; quote it: {shown(text)}")
        return None

    def _merged(
        self, node: MappingNode, path: KeyPath, own: Mapping[str, int]
    ) -> dict[str, object]:
        """What `<<: *anchor` brings in, less the keys that the mapping sets itself."""
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            sources = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            for source in sources:
                if not isinstance(source, MappingNode):
                    self._problem(key_node, (*path, "<<"), "only a mapping can be merged in")
                    continue
                result = {**self._without(source, path, own), **result}
        return result

    def _without(
        self, node: MappingNode, path: KeyPath, own: Mapping[str, int]
    ) -> dict[str, object]:
        pairs = [pair for pair in node.value if pair[0].value not in own]
        rest = MappingNode(node.tag, pairs, node.start_mark, node.end_mark)
        return self._mapping(rest, path)

    def _scalar(self, node: ScalarNode, path: KeyPath) -> object:
        kind, text = node.tag.rpartition(":")[2], node.value
        match kind:
            case "str":
                return self._text(node, path)
            case "int" if _INT.fullmatch(text):
                return int(text)
            case "float" if _FLOAT.fullmatch(text):
                return float(text)
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "null" if text:
                return None
        return self._problem(node, path, _surprise(node, kind))

    def _text(self, node: ScalarNode, path: KeyPath) -> object:
        if path and path[-1] in _COMMAND_LINES and path[0] == "models" and len(path) == 3:
            try:
                words = shlex.split(node.value)
            except ValueError as error:
                return self._problem(node, path, f"not a command line: {error}".lower())
            return [self._filled(node, word, path) for word in words]
        return self._filled(node, node.value, path)

    def _filled(self, node: ScalarNode, text: str, path: KeyPath) -> str:
        """The text with `${env:NAME}` and `${credential:NAME}` replaced; what is not there is a
        problem."""

        def value(match: re.Match[str]) -> str:
            kind, name = match[1], match[2]
            if kind == "credential":
                return self._credential(node, name, path)
            if name not in self.environ:
                self._problem(
                    node, path, f"the environment variable {name or '(no name)'} is not set"
                )
            return self.environ.get(name, "")

        return _FROM_OUTSIDE.sub(value, text)

    def _credential(self, node: ScalarNode, name: str, path: KeyPath) -> str:
        """What systemd was told to hand over under that name."""
        folder = self.environ.get(_CREDENTIALS)
        if not folder or not name or "/" in name:
            text = f"the credential {name or '(no name)'} is not there: no LoadCredential= names it"
            self._problem(node, path, text)
            return ""
        try:
            return (Path(folder) / name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            self._problem(node, path, f"the credential {name} cannot be read: {reason}")
            return ""

    def _problem(self, node: Node, path: KeyPath, text: str) -> object:
        """Note a problem; the value it stands for is nothing."""
        line = node.start_mark.line + 1
        self.problems.append(Problem(self.file, line, dotted(path), text))
        return None


def _surprise(node: ScalarNode, kind: str) -> str:
    """Why a scalar is not taken as it stands."""
    text = node.value
    if kind == "null":
        return "has no value; remove the key, or give it one"
    if kind not in ("int", "float", "bool", "timestamp"):
        return f"the tag {node.tag} has no meaning here"
    if kind == "bool":
        return (
            f"YAML reads {text} as true or false; write true or false, or quote it: {shown(text)}"
        )
    read_as = yaml.safe_load(text)
    return f"YAML reads {text} as {read_as}; quote it if the text is meant: {shown(text)}"


def shown(text: str) -> str:
    """The text in YAML's quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
