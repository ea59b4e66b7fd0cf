"""A file that may change."""

from __future__ import annotations

from pathlib import Path


class WatchedFile:
    """As it was when it was last looked at. Make it before the file is read, so that no change is missed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _version(path)

    def has_changed(self) -> bool:
        """Since the last look. Not while it is away, as in the middle of being replaced."""
        version = _version(self._path)
        if version is None or version == self._seen:
            return False
        self._seen = version
        return True


def _version(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino
