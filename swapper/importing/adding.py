"""A model added to a configuration file as text: comments and layout stay as they are."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from swapper.config.load import parse_config
from swapper.errors import ConfigError
from swapper.importing.draft import DraftModel, flow, render_model


def add_to_file(path: Path, model: DraftModel) -> bool:
    """Add a model to the file, which is made if it is not there; False if it says so already.

    Raises ConfigError, and then the file is as it was: the name is taken, the layout is one to which
    text cannot be added, or the file would no longer be a configuration.
    """
    return _changed(path, lambda text: with_model(text, model, str(path)))


def add_alias_to_file(path: Path, model: str, alias: Mapping[str, object]) -> None:
    """Add an alias to a model of the file; raises ConfigError, and then the file is as it was."""
    _changed(path, lambda text: with_alias(text, model, alias, str(path)))


def _changed(path: Path, change: Callable[[str], str]) -> bool:
    try:
        before = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    after = change(before)
    if after == before:
        return False
    parse_config(after, str(path), path.parent.absolute(), os.environ)
    write_whole(path, after)
    return True


def with_model(text: str, model: DraftModel, file: str) -> str:
    """The text of a configuration with one model more, or as it is if it holds just that one."""
    models = _models_node(text, file)
    if models is None:
        start = f"{text.rstrip()}\n\n" if text.strip() else ""
        return f"{start}models:\n{render_model(model)}"
    if not isinstance(models, MappingNode) or (models.flow_style and models.value):
        raise ConfigError(
            f"{file}: `models` is written on one line; add this by hand:\n{render_model(model)}"
        )
    for key, value in models.value:
        if key.value == model.name:
            return _unchanged(text, value, model, file, key.start_mark.line + 1)
    if not models.value:
        raise ConfigError(f"{file}: `models` is empty; write models: with nothing after it")
    indent, step = _layout(models)
    lines = text.splitlines()
    end = _end_of(models, lines)
    block = render_model(model, indent, step).splitlines()
    is_spaced = any(not line.strip() for line in lines[models.start_mark.line : end])
    lines[end:end] = ["", *block] if is_spaced or len(models.value) == 1 else block
    return "\n".join(lines) + "\n"


def with_alias(text: str, model: str, alias: Mapping[str, object], file: str) -> str:
    """The text of a configuration with one more alias of a model; raises ConfigError."""
    models = _models_node(text, file)
    pairs = models.value if isinstance(models, MappingNode) else []
    section = next((value for key, value in pairs if key.value == model), None)
    if not isinstance(section, MappingNode) or section.flow_style or not section.value:
        raise ConfigError(f"{file}: add this to the aliases of {model} by hand: {flow(alias)}")
    there = next((value for key, value in section.value if key.value == "aliases"), None)
    if isinstance(there, SequenceNode) and there.flow_style:
        end = there.end_mark.index - 1
        comma = ", " if there.value else ""
        return f"{text[:end].rstrip()}{comma}{flow(alias)}{text[end:]}"
    lines = text.splitlines()
    if isinstance(there, SequenceNode) and there.value:
        column = there.value[0].start_mark.column - 2
        lines.insert(_last_line(there) + 1, f"{' ' * column}- {flow(alias)}")
    else:
        column = section.value[0][0].start_mark.column
        lines.insert(_last_line(section) + 1, f"{' ' * column}aliases: [{flow(alias)}]")
    return "\n".join(lines) + "\n"


def _models_node(text: str, file: str) -> Node | None:
    """What stands under `models:`, None for nothing."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    if root is None:
        return None
    if not isinstance(root, MappingNode):
        raise ConfigError(f"{file}: is no configuration of swapper")
    found = [value for key, value in root.value if key.value == "models"]
    if found and isinstance(found[0], ScalarNode):
        raise ConfigError(f"{file}: `models` has no value; remove the key, or give it one")
    return found[0] if found else None


def _unchanged(text: str, value: Node, model: DraftModel, file: str, line: int) -> str:
    there = yaml.SafeLoader("")
    try:
        same = there.construct_object(value, deep=True) == model.keys
    finally:
        there.dispose()
    if same:
        return text
    raise ConfigError(
        f"{file}:{line}: there is a model '{model.name}' already; choose another name"
    )


def _layout(models: MappingNode) -> tuple[str, str]:
    """The indent of models' names, and how much deeper their keys stand."""
    column = models.value[0][0].start_mark.column
    inner = next(
        (
            value.value[0][0].start_mark.column - column
            for _, value in models.value
            if isinstance(value, MappingNode) and value.value and not value.flow_style
        ),
        2,
    )
    return " " * column, " " * inner


def _end_of(models: MappingNode, lines: list[str]) -> int:
    """The line after the last model, comments that follow at once included."""
    end = _last_line(models) + 1
    column = models.value[0][0].start_mark.column
    while end < len(lines):
        line = lines[end]
        if not line.lstrip().startswith("#") or len(line) - len(line.lstrip()) <= column:
            break
        end += 1
    return end


def _last_line(node: Node) -> int:
    """The last line (from 0) with something of the node on it."""
    if isinstance(node, MappingNode | SequenceNode) and node.value and not node.flow_style:
        final = node.value[-1]
        return _last_line(final[1] if isinstance(node, MappingNode) else final)
    line, column = node.end_mark.line, node.end_mark.column
    return int(line - 1 if column == 0 else line)  # a block of text ends where the next line starts


def write_whole(path: Path, text: str) -> None:
    """Write a file as a whole or not at all, with the mode it has; raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve()
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(temporary, mode)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
