"""What can be seen of a model that will not load, before anybody is moved out for it."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from swapper.checkpoint import read_checkpoint
from swapper.core.events import Failure
from swapper.errors import ConfigError
from swapper.gguf import read_header
from swapper.runtime.placement import LaunchSpec


class Preflight:
    """Looks at files and programs. A file that was found whole is not read again until it changes."""

    def __init__(self) -> None:
        self._whole: dict[Path, tuple[int, int]] = {}  # path -> size and time when it was read

    async def check(self, spec: LaunchSpec) -> Failure | None:
        """Why the model cannot be loaded, as far as a look tells."""
        return await asyncio.to_thread(self._check, spec)

    def _check(self, spec: LaunchSpec) -> Failure | None:
        match spec.engine:
            case "command":
                return _check_command(spec)
            case "llamacpp":
                return self._check_gguf(Path(str(spec.options.get("path", ""))))
            case "paged":
                return _check_checkpoint(Path(str(spec.options.get("path", ""))))
        return None

    def _check_gguf(self, path: Path) -> Failure | None:
        try:
            stat = path.stat()
            version = stat.st_size, stat.st_mtime_ns
            if self._whole.get(path) != version:
                read_header(path)
                self._whole[path] = version
        except OSError:
            return Failure("missing_file", f"{path.name} does not exist; correct its `path`")
        except ConfigError as error:
            return Failure("bad_file", str(error))
        return None


def _check_checkpoint(folder: Path) -> Failure | None:
    if not folder.is_dir():
        return Failure("missing_file", f"{folder.name} does not exist; correct its `path`")
    try:
        read_checkpoint(folder)
    except ConfigError as error:
        return Failure("bad_file", str(error))
    return None


def _check_command(spec: LaunchSpec) -> Failure | None:
    program = spec.cmd[0] if spec.cmd else ""
    if "${" in program:
        return None  # filled in when the worker starts
    if spec.cwd and not Path(spec.cwd).is_dir():
        return Failure("missing_file", f"the folder {spec.cwd} does not exist; correct `cwd`")
    if os.sep in program and not os.path.isabs(program):
        program = os.path.join(spec.cwd or ".", program)
    path = spec.env.get("PATH", os.environ.get("PATH"))
    if shutil.which(program, path=path) is None:
        return Failure("missing_command", f"there is no program '{program}'; correct `cmd`")
    return None
