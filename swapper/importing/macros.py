"""llama-swap's macros: `${name}` in any value, a whole value keeping the macro's type."""

from __future__ import annotations

import re
from collections.abc import Mapping

_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
_KEPT = {"PORT": "${port}", "PID": "${pid}"}  # filled in when the worker is started
_DEEPEST = 20


class UnknownMacro(ValueError):
    """A macro that is not defined, or that holds itself."""


def fill_in(value: object, macros: Mapping[str, object], model: str) -> object:
    """The value with its macros replaced, however deep they stand.

    `model` stands for `${MODEL_ID}`; environment variables stay references. Raises UnknownMacro.
    """
    return _filled(value, {**macros, "MODEL_ID": model}, 0)


def _filled(value: object, macros: Mapping[str, object], depth: int) -> object:
    if isinstance(value, Mapping):
        return {
            str(_filled(str(key), macros, depth)): _filled(inner, macros, depth)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_filled(item, macros, depth) for item in value]
    if not isinstance(value, str):
        return value
    if depth > _DEEPEST:
        raise UnknownMacro(f"a macro holds itself: {value[:60]}")
    whole = _MACRO.fullmatch(value)
    if whole is not None:
        return _named(whole[1], macros, depth)
    return _MACRO.sub(lambda match: _text(_named(match[1], macros, depth)), value)


def _named(name: str, macros: Mapping[str, object], depth: int) -> object:
    if name in _KEPT:
        return _KEPT[name]
    if name.startswith("env."):
        return "${env:" + name.removeprefix("env.") + "}"
    if name == "MODEL_ID":
        return macros[name]
    if name not in macros:
        raise UnknownMacro(f"the macro ${{{name}}} is not defined")
    return _filled(macros[name], macros, depth + 1)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
