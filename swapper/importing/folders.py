"""Folders of model files: LM Studio's, the Hugging Face cache, and any other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from swapper.errors import ConfigError
from swapper.importing.draft import Draft, DraftModel
from swapper.importing.model_files import (
    ModelFile,
    file_model,
    model_files,
    quantisation,
    unique,
)

_REPOSITORY = re.compile(r"models--(.+)")
_GGUF_ENDING = re.compile(r"[-_.]gguf$", re.IGNORECASE)


def read_folder(folder: Path) -> Draft:
    """Every model below a folder, named after its file; a name that comes twice has its folder in
    front."""
    files = model_files(folder)
    stems = Counter((file.stem, file.path.is_dir()) for file in files)
    ggufs = {file.stem for file in files if not file.path.is_dir()}
    models = []
    for file in files:
        is_folder = file.path.is_dir()
        name = f"{file.stem}-safetensors" if is_folder and file.stem in ggufs else file.stem
        if stems[file.stem, is_folder] > 1:
            name = f"{file.path.parent.name}/{name}"
        models.append(file_model(name, file))
    return Draft(origin=f"the folder {folder}", models=unique(models))


def read_lm_studio(folder: Path) -> Draft:
    """LM Studio's `PUBLISHER/REPOSITORY/FILE`, by the names it gives models itself."""
    models = []
    for repository in _inner(folder, 2):
        files = model_files(repository, 0)
        for file in files:
            base = _GGUF_ENDING.sub("", repository.name).lower()
            quant = (quantisation(file.path.stem) or file.stem).lower()
            model = file_model(f"{base}@{quant}" if len(files) > 1 else base, file)
            if model.keys:
                model.keys["aliases"] = [f"{repository.parent.name}/{file.stem}"]
            models.append(model)
    return Draft(origin=f"LM Studio's folder {folder}", models=unique(models))


def is_hub_cache(folder: Path) -> bool:
    """Whether the folder is a Hugging Face cache."""
    return folder.is_dir() and any(folder.glob("models--*/snapshots"))


def read_hub_cache(folder: Path) -> Draft:
    """What the Hugging Face cache holds whole, each repository as its newest revision."""
    models: list[DraftModel] = []
    for place in sorted(folder.glob("models--*")):
        repository = str(_REPOSITORY.sub(r"\1", place.name)).replace("--", "/")
        if (snapshot := _snapshot(place)) is not None:
            models += _of_repository(repository, model_files(snapshot))
    return Draft(origin=f"the Hugging Face cache {folder}", models=unique(models))


def _of_repository(repository: str, files: list[ModelFile]) -> Iterator[DraftModel]:
    for file in files:
        quant = quantisation(file.path.stem) if file.path.is_file() else None
        name = f"{repository}:{quant}" if quant else repository
        yield file_model(name, file)


def _snapshot(repository: Path) -> Path | None:
    """The folder of the revision that `main` is, or of the newest that is there."""
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        if commit and (found := repository / "snapshots" / commit).is_dir():
            return found
    except OSError:
        pass
    snapshots = [path for path in (repository / "snapshots").glob("*") if path.is_dir()]
    return max(snapshots, key=lambda path: path.stat().st_mtime, default=None)


def _inner(folder: Path, depth: int) -> list[Path]:
    try:
        found = [folder]
        for _ in range(depth):
            found = [
                inner for outer in found for inner in sorted(outer.iterdir()) if inner.is_dir()
            ]
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: {error.strerror}") from None
    return found
