"""The small files of a checkpoint folder. What is wrong with one is one sentence with its name.

Links are followed: caches of downloads lay a folder out as links to files elsewhere.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from backends.serving.engine import EngineError


def read_json(folder: str | Path, name: str) -> dict[str, Any]:
    """The JSON object in `folder`/`name`. Raises EngineError, `missing_file` or `bad_file`."""
    text = read_text(folder, name)
    if text is None:
        raise EngineError("missing_file", f"{shown(folder)} has no {name}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError("bad_file", f"{name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise EngineError("bad_file", f"{name} holds no JSON object")
    return value


def read_json_if_any(folder: str | Path, name: str) -> dict[str, Any]:
    """The same; an empty one where there is no such file."""
    return read_json(folder, name) if os.path.exists(os.path.join(folder, name)) else {}


def read_text(folder: str | Path, name: str) -> str | None:
    """The text in `folder`/`name`, None where there is none. Raises EngineError `bad_file`."""
    path = os.path.join(folder, name)
    try:
        check_regular(path, name)
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise EngineError("bad_file", f"{shown(folder)} is not a checkpoint folder") from None
    except OSError as error:
        raise EngineError("bad_file", f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        reason = f"{name} is not text in UTF-8: byte {error.start} is none of it"
        raise EngineError("bad_file", reason) from None


def check_regular(path: str, name: str) -> None:
    """Raise EngineError for what would never end, such as a pipe or a device. Raises OSError."""
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise EngineError("bad_file", f"{name} is not a regular file")


def shown(folder: str | Path) -> str:
    """A folder's name, as users know it."""
    return os.path.basename(os.path.normpath(folder))
