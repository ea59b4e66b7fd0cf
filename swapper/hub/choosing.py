"""Which files of a repository make up the model that is wanted. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from swapper.config.units import format_size
from swapper.errors import ConfigError
from swapper.importing.model_files import projector_rank, quantisation

PREFERRED = (
    "Q4_K_M", "UD-Q4_K_XL", "Q4_K_S", "MXFP4", "MXFP4_MOE", "Q4_0", "IQ4_XS", "Q5_K_M", "Q6_K", "Q8_0",
    "BF16", "F16", "F32",
)  # fmt: skip

_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_BESIDE_WEIGHTS = (".json", ".model", ".jinja", ".tiktoken")  # of a safetensors folder
_TEXTS = ("merges.txt", "vocab.txt")
_PREFIXES = (
    "https://huggingface.co/",
    "http://huggingface.co/",
    "huggingface.co/",
    "hf.co/",
    "hf://",
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; `sha256` of what is large, `blob_id` (git's SHA-1) of what is not."""

    path: str
    size: int
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asked for: a repository, and of it a quantisation, a file, or what is best."""

    repository: str
    quant: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The files to fetch. `main` is the first part of a GGUF; None: the folder is the model."""

    files: tuple[RemoteFile, ...]
    main: str | None = None
    projector: str | None = None

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.files)


def parse_wanted(text: str) -> Wanted:
    """`org/name`, `org/name:Q4_K_M`, `org/name/file.gguf`, or its address; raises ConfigError."""
    rest = text.strip()
    for prefix in _PREFIXES:
        rest = rest.removeprefix(prefix)
    rest, _, quant = rest.rstrip("/").partition(":")
    parts = rest.split("/")
    if len(parts) > 4 and parts[2] in ("resolve", "blob"):  # as the browser has it
        parts[2:4] = []
    if len(parts) < 2 or not all(parts) or ".." in parts or (quant and len(parts) > 2):
        raise ConfigError(
            f"'{text}' is no repository; write ORG/NAME, ORG/NAME:QUANT or ORG/NAME/FILE"
        )
    return Wanted("/".join(parts[:2]), quant.upper() or None, "/".join(parts[2:]) or None)


def choose(wanted: Wanted, files: Sequence[RemoteFile]) -> Choice:
    """The files of the model; raises ConfigError that says what there is instead."""
    ggufs = _models(files)
    if wanted.file is not None and not wanted.file.lower().endswith(".gguf"):
        raise ConfigError(
            f"{wanted.file}: only GGUF files are fetched one by one; name just the repository"
        )
    if wanted.file is None and wanted.quant is None and not ggufs:
        return _folder(wanted.repository, files)
    if wanted.file is not None:
        name = _whole(wanted.file)
        if name not in ggufs:
            raise ConfigError(f"{wanted.repository} has no file {wanted.file}; {_there_is(ggufs)}")
    else:
        name = _by_quant(wanted, ggufs)
    parts = _all_parts(name, ggufs[name])
    projector = min(
        (file for file in files if _is_projector(file.path)),
        key=lambda file: projector_rank(PurePosixPath(file.path).name),
        default=None,
    )
    extra = () if projector is None else (projector,)
    return Choice((*parts, *extra), parts[0].path, projector.path if projector else None)


def _models(files: Sequence[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """The GGUF models, each with its parts, by path without the parts' numbers."""
    models: dict[str, list[RemoteFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        name = PurePosixPath(file.path).name.lower()
        if name.endswith(".gguf") and "imatrix" not in name and not _is_projector(file.path):
            models.setdefault(_whole(file.path), []).append(file)
    return models


def _whole(path: str) -> str:
    return _SPLIT.sub(".gguf", path)


def _is_projector(path: str) -> bool:
    name = PurePosixPath(path).name.lower()
    return name.endswith(".gguf") and "mmproj" in name


def quant_of(path: str) -> str | None:
    """A file's quantisation, by its name or its folder's."""
    pure = PurePosixPath(_whole(path))
    return quantisation(pure.stem) or quantisation(pure.parent.name)


def _by_quant(wanted: Wanted, ggufs: dict[str, list[RemoteFile]]) -> str:
    quants = (wanted.quant,) if wanted.quant else PREFERRED
    for quant in quants:
        found = [path for path in ggufs if quant_of(path) == quant]
        found = found or [path for path in ggufs if quant_of(path) == f"UD-{quant}"]
        if len(found) > 1:
            raise ConfigError(
                f"{wanted.repository} has {len(found)} files of {quant}; name one: {', '.join(found)}"
            )
        if found:
            return found[0]
    if wanted.quant is None and len(ggufs) == 1:
        return next(iter(ggufs))
    asked = f"no {wanted.quant}" if wanted.quant else "nothing that goes without saying"
    raise ConfigError(f"{wanted.repository} has {asked}; {_there_is(ggufs)}")


def _there_is(ggufs: dict[str, list[RemoteFile]]) -> str:
    if not ggufs:
        return "it has no GGUF file at all"
    sizes = {path: format_size(sum(part.size for part in parts)) for path, parts in ggufs.items()}
    told = (f"{quant_of(path) or path} ({size})" for path, size in sizes.items())
    return f"there is {', '.join(told)}"


def _all_parts(name: str, parts: list[RemoteFile]) -> list[RemoteFile]:
    first = _SPLIT.search(parts[0].path)
    if first is not None and len(parts) != int(first[2]):
        raise ConfigError(f"{name}: the repository holds {len(parts)} of its {int(first[2])} parts")
    return parts


def _folder(repository: str, files: Sequence[RemoteFile]) -> Choice:
    """Weights and what belongs to them, all at the top of the repository."""
    top = [file for file in files if "/" not in file.path]
    weights = [file for file in top if file.path.endswith(".safetensors")]
    if not weights or not any(file.path == "config.json" for file in top):
        raise ConfigError(
            f"{repository} holds neither GGUF files nor safetensors with a config.json"
        )
    whole = [file for file in weights if not file.path.startswith("consolidated")]
    rest = [file for file in top if file.path.endswith(_BESIDE_WEIGHTS) or file.path in _TEXTS]
    return Choice((*rest, *(whole or weights)))
