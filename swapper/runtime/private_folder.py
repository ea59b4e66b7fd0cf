"""A folder for the sockets and option files of one proxy, gone with it or cleaned by the next."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

PREFIX = "swp-"
SOCKET_PATH_BYTES = 100  # the kernel takes 108 (Linux) or 104 (macOS) with the final zero
NAME_BYTES = 48  # the longest file name put under a folder of ours, the folder's own included


class PrivateFolder:
    """A folder of mode 0700 under `base`, locked while this process lives.

    Where `base` is too long a path for Unix sockets, it lies under the system's temporary folder.
    `on_leftover` is given each folder whose proxy is gone without having removed it, before it is
    removed; nothing else in `base` is touched. Raises OSError where there is no writing.
    """

    def __init__(self, base: Path, on_leftover: Callable[[Path], object] = lambda _: None) -> None:
        base = _make_base(base.resolve())
        with _alone_in(base):
            for folder in base.iterdir():
                _remove_if_left(folder, on_leftover)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
            self._lock = _lock(self.path)

    def write(self, name: str, text: str) -> Path:
        """A new file that only we may read."""
        path = self.path / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(text)
        return path

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> PrivateFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _make_base(base: Path) -> Path:
    if len(os.fsencode(base)) + NAME_BYTES <= SOCKET_PATH_BYTES:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        return base
    base = Path(tempfile.gettempdir()) / f"swapper-{os.geteuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if not _is_ours(base):  # everybody may make folders there, and links
        raise PermissionError(f"'{base}' is not a folder of ours; remove it")
    return base


@contextmanager
def _alone_in(base: Path) -> Iterator[None]:
    """No other proxy is between making its folder and locking it."""
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    mode_is_private = stat.S_IMODE(found.st_mode) == 0o700
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and mode_is_private


def _remove_if_left(folder: Path, on_leftover: Callable[[Path], object]) -> None:
    """A folder that can be locked has no living proxy."""
    if not re.fullmatch(PREFIX + r"[a-z0-9_]{8}", folder.name) or not _is_ours(folder):
        return
    lock = _lock(folder)
    if lock is None:
        return
    on_leftover(folder)
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None when another process has it.

    The kernel lets go of it when the process ends, however it does.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
