"""Somebody else's YAML to plain values, with the line of every key."""

from __future__ import annotations

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from swapper.config.problems import KeyPath
from swapper.errors import ConfigError


def read_located(text: str, file: str) -> tuple[object, dict[KeyPath, int]]:
    """Values and lines (from 1) by key; raises ConfigError for what is not YAML."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}" if mark else file
        raise ConfigError(f"{place}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()
    lines: dict[KeyPath, int] = {}
    if node is not None:
        _note_lines(node, (), lines)
    return value, lines


def _note_lines(node: Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if len(path) > 4:  # deeper, nobody asks; and an anchor may hold itself
        return
    if isinstance(node, MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, lines)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*path, index), lines)
