"""A folder for the sockets and option files of one proxy, gone with it or cleaned by the next."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

SOCKET_PATH_BYTES = 100  # the kernel takes 108 (Linux) or 104 (macOS) with the final zero
NAME_BYTES = 48  # the longest file name put under a folder of ours, the folder's own included


class PrivateFolder:
    """A folder of mode 0700 under `base`, locked while this process lives.

    Where `base` is too long a path for Unix sockets, it lies under the system's temporary folder.
    `on_leftover` is given each folder whose proxy is gone without having removed it, before it is
    removed. Raises OSError where there is no writing.
    """

    def __init__(self, base: Path, on_leftover: Callable[[Path], object] = lambda _: None) -> None:
        self._base = _short_enough(base.absolute())
        _make_private(self._base)
        for folder in self._base.iterdir():
            _remove_if_left(folder, on_leftover)
        self.path = Path(tempfile.mkdtemp(prefix="p", dir=self._base))
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


def _short_enough(base: Path) -> Path:
    if len(os.fsencode(base)) + NAME_BYTES <= SOCKET_PATH_BYTES:
        return base
    return Path(tempfile.gettempdir()) / f"swapper-{os.geteuid()}"


def _make_private(folder: Path) -> None:
    """Make it ours alone; raises PermissionError where somebody else laid it out for us."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"'{folder}' is not a folder of ours; remove it")
    folder.chmod(0o700)


def _remove_if_left(folder: Path, on_leftover: Callable[[Path], object]) -> None:
    """A folder that can be locked has no living proxy."""
    if not folder.name.startswith("p") or folder.is_symlink() or not folder.is_dir():
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
