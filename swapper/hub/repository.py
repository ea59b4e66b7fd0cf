"""A repository on the hub: its list of files, and their content, fetched so that it can go on later.

What `huggingface_hub` raises becomes a ConfigError of one sentence.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub import errors as hub_errors
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers, logging  # type: ignore[attr-defined]

from swapper import __version__
from swapper.config.units import format_size
from swapper.errors import ConfigError
from swapper.hub.choosing import Choice, RemoteFile

SPARE_BYTES = 256 << 20  # left free on the disk
LIST_TIMEOUT_S = 30.0


class Repository:
    """One revision of a repository. Use `files` first: it fixes the commit that everything is of."""

    def __init__(self, name: str, revision: str | None) -> None:
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        self._name = name
        self._revision = revision
        self._headers = build_hf_headers(library_name="swapper", library_version=__version__)

    def files(self) -> list[RemoteFile]:
        """All files with their sizes and checksums; raises ConfigError."""
        api = HfApi(library_name="swapper", library_version=__version__)
        with self._plain_errors(self._name):
            info = api.model_info(
                self._name, revision=self._revision, files_metadata=True, timeout=LIST_TIMEOUT_S
            )
        self._revision = info.sha or self._revision
        return [
            RemoteFile(
                file.rfilename,
                file.size or 0,
                file.lfs.sha256 if file.lfs else None,
                file.blob_id if not file.lfs else None,
            )
            for file in info.siblings or ()
        ]

    def fetch(self, file: RemoteFile, folder: Path, progress: Callable[[int], None]) -> Path:
        """The file below `folder`, whole and with the right checksum; raises ConfigError.

        What an earlier call has fetched of it is used. `progress` is told of bytes as they come.
        """
        target = place_of(file, folder)
        if _is_there(file, folder):
            progress(file.size)
            return target
        part = _part(file, folder)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with self._plain_errors(f"{self._name}/{file.path}"):
                self._download(file, part, progress)
            _verify(file, part)
            part.replace(target)
        except OSError as error:
            why = error.strerror or str(error).splitlines()[0]
            raise ConfigError(f"{target}: {why}") from None
        return target

    def _download(self, file: RemoteFile, part: Path, progress: Callable[[int], None]) -> None:
        if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:  # the hub gives these out in another way
            whole = part.with_suffix(".whole")
            found = hf_hub_download(self._name, file.path, revision=self._revision, local_dir=whole)
            Path(found).replace(part)
            shutil.rmtree(whole)
            progress(file.size)
            return
        with part.open("ab") as out:
            if out.tell() > file.size:  # it cannot be the beginning of this file
                out.truncate(0)
            done = out.tell()
            progress(done)
            http_get(
                hf_hub_url(self._name, file.path, revision=self._revision),
                out,
                resume_size=done,
                headers=self._headers,
                expected_size=file.size,
                tqdm_class=_told_to(progress),
            )

    @contextlib.contextmanager
    def _plain_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except hub_errors.GatedRepoError:
            raise ConfigError(
                f"{what} is gated: accept its terms on {constants.ENDPOINT}/{self._name} "
                "and set HF_TOKEN to a token of yours"
            ) from None
        except hub_errors.RevisionNotFoundError:
            raise ConfigError(f"{self._name} has no revision '{self._revision}'") from None
        except hub_errors.RepositoryNotFoundError:
            raise ConfigError(
                f"{self._name}: there is no such repository, or it is private; "
                "set HF_TOKEN to a token that may read it"
            ) from None
        except hub_errors.EntryNotFoundError:
            raise ConfigError(f"{what} is not there") from None
        except hub_errors.HFValidationError:
            raise ConfigError(f"'{self._name}' is no name of a repository") from None
        except hub_errors.OfflineModeIsEnabled:
            raise ConfigError(f"{what}: HF_HUB_OFFLINE is set; nothing is fetched") from None
        except hub_errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise ConfigError(f"{what}: the hub refuses the token in HF_TOKEN") from None
            raise ConfigError(f"{what}: the hub answered {status}; try again later") from None
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise ConfigError(
                f"{what}: {constants.ENDPOINT} cannot be reached ({why}); again goes on where it ended"
            ) from None


def place_of(file: RemoteFile, folder: Path) -> Path:
    """Where the file comes to lie; raises ConfigError for a name that leads out of the folder."""
    target = folder / file.path
    if not target.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"'{file.path}' is no name for a file")
    return target


def check_room(choice: Choice, folder: Path) -> None:
    """Raise ConfigError if the disk has no room for what is still to be fetched."""
    needed = sum(file.size - _num_fetched(file, folder) for file in choice.files)
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed and needed + SPARE_BYTES > free:
        raise ConfigError(
            f"{folder}: {format_size(needed)} are needed, and {format_size(free)} are free; "
            "--to names another folder"
        )


def _num_fetched(file: RemoteFile, folder: Path) -> int:
    if _is_there(file, folder):
        return file.size
    part = _part(file, folder)
    return part.stat().st_size if part.is_file() else 0


def _is_there(file: RemoteFile, folder: Path) -> bool:
    """Whether an earlier call has fetched it: what has its name is whole and was verified."""
    target = place_of(file, folder)
    return target.is_file() and target.stat().st_size == file.size


def _part(file: RemoteFile, folder: Path) -> Path:
    """Where a download grows. Its name holds the checksum, so that another version begins anew."""
    target = place_of(file, folder)
    return target.with_name(f"{target.name}.{(file.sha256 or file.blob_id or '')[:12]}.part")


def _verify(file: RemoteFile, part: Path) -> None:
    """Compare with the repository's checksum; what is wrong is removed, and told as a ConfigError."""
    with part.open("rb") as content:
        if file.sha256 is not None:
            wanted, found = file.sha256, hashlib.file_digest(content, "sha256").hexdigest()
        elif file.blob_id is not None:
            git = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
            git.update(content.read())
            wanted, found = file.blob_id, git.hexdigest()
        else:
            return
    if wanted != found:
        part.unlink()
        raise ConfigError(f"{file.path}: its checksum is wrong, so it was removed; fetch it again")


def _told_to(progress: Callable[[int], None]) -> Any:
    """A progress bar as `http_get` wants one, that only passes on what it is told."""

    class Told:
        def __init__(self, *args: object, **options: object) -> None:
            pass

        def __enter__(self) -> Told:
            return self

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            pass

        def update(self, num_bytes: float | None = 1) -> None:
            progress(int(num_bytes or 0))

        def close(self) -> None:
            pass

    return Told
