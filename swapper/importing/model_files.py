"""Models as they lie on a disk: GGUF files, with what belongs to them, and safetensors folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swapper.config.schema import ENGINES
from swapper.errors import ConfigError
from swapper.gguf import GgufHeader, read_header
from swapper.importing.draft import DraftModel

DEEPEST = 6  # folders below the one that is searched

_SPLIT = re.compile(r"-(\d{5})-of-\d{5}$")
_QUANT = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|BF16|F16|F32))(?=$|[-._])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A GGUF (of a split one its first part), or a folder of safetensors.

    `projector` is what lets it see. `problem` says why nobody can serve it.
    """

    path: Path
    projector: Path | None = None
    is_embedder: bool = False
    problem: str | None = None

    @property
    def stem(self) -> str:
        """The name without parts and suffix."""
        is_gguf = self.path.suffix.lower() == ".gguf"
        return _SPLIT.sub("", self.path.stem) if is_gguf else self.path.name


def quantisation(stem: str) -> str | None:
    """`Q4_K_M` out of a file's name, in capitals."""
    found = _QUANT.findall(_SPLIT.sub("", stem))
    return found[-1].upper() if found else None


def model_files(folder: Path, deepest: int = DEEPEST) -> list[ModelFile]:
    """Every model below the folder, in the order of paths. Raises ConfigError if it cannot be read."""
    try:
        return list(_below(folder, deepest))
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: {error.strerror}") from None


def _below(folder: Path, deepest: int) -> Iterator[ModelFile]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if entry.is_file()]
    ggufs = [file for file in files if file.suffix.lower() == ".gguf" and not _is_later_part(file)]
    if ggufs:
        yield from _ggufs(ggufs)
    elif any(file.suffix == ".safetensors" for file in files):
        has_config = any(file.name == "config.json" for file in files)
        yield ModelFile(folder, problem=None if has_config else "has no config.json")
    if deepest > 0:
        for inner in entries:
            if inner.is_dir() and not inner.is_symlink():
                yield from _below(inner, deepest - 1)


def _ggufs(files: Sequence[Path]) -> Iterator[ModelFile]:
    """The models among a folder's GGUFs, each with the projector there that fits it."""
    projectors = [file for file in files if is_projector(file)]
    for file in files:
        if file not in projectors and (found := look_at(file)) is not None:
            yield replace(found, projector=projector_of(file, projectors))


def is_projector(file: Path) -> bool:
    """Whether a GGUF is called what everybody calls those that let a model see."""
    return "mmproj" in file.name.lower()


def projector_of(file: Path, projectors: Sequence[Path]) -> Path | None:
    """Of the projectors that lie beside a model the one to take: it encodes images, into rows as wide
    as the model's."""
    fitting = (projector for projector in projectors if _fits(file, projector))
    return min(fitting, key=lambda projector: projector_rank(projector.name), default=None)


def _fits(file: Path, projector: Path) -> bool:
    try:
        model, eye = read_header(file), read_header(projector)
    except ConfigError:
        return False
    width = eye.metadata.get("clip.vision.projection_dim")  # 0 in some that old programs wrote
    return (
        eye.architecture == "clip"
        and eye.metadata.get("clip.has_vision_encoder") is not False
        and not _is_embedder(model)
        and width in (None, 0, model.metadata.get(f"{model.architecture}.embedding_length"))
    )


def look_at(file: Path, projector: Path | None = None) -> ModelFile | None:
    """What a GGUF is, by its header; None for what is no model (a projector, an adapter). `projector` is
    what comes with it, and is left out where it encodes no images, but sounds perhaps."""
    try:
        header = read_header(file)
    except ConfigError as error:
        return ModelFile(file, problem=str(error))
    kind = header.metadata.get("general.type", "model")
    if header.architecture == "clip" or kind != "model" or not header.tensors:
        return None
    found = None if projector is None else projector_of(file, [projector])
    return ModelFile(file, found, _is_embedder(header))


def _is_embedder(header: GgufHeader) -> bool:
    return header.metadata.get(f"{header.architecture}.pooling_type", 0) != 0


def _is_later_part(file: Path) -> bool:
    part = _SPLIT.search(file.stem)
    return part is not None and part[1] != "00001"


def projector_rank(name: str) -> tuple[int, str]:
    """The least of several projectors' ranks is of the one to take."""
    quant = quantisation(name.removesuffix(".gguf")) or ""
    order = ("F16", "BF16", "Q8_0", "F32")
    return (order.index(quant) if quant in order else len(order), name)


def file_model(name: str, file: ModelFile) -> DraftModel:
    """The model that a file is; only a note, where no engine serves it."""
    if file.problem is not None:
        return DraftModel(name, notes=[f"{file.path}: {file.problem}"])
    engine = "paged" if file.path.is_dir() else "llamacpp"
    if engine not in ENGINES:
        return DraftModel(name, notes=[f"{file.path}: no engine here serves safetensors"])
    model = DraftModel(name, {"engine": engine, "path": str(file.path)})
    if file.projector is not None:
        model.keys["mmproj"] = str(file.projector)
    if file.is_embedder:
        model.keys["role"] = "embedding"
    return model


def unique(models: Sequence[DraftModel]) -> list[DraftModel]:
    """The same with different names: a name that comes again has a number. Aliases give way to names."""
    taken: set[str] = set()
    for model in models:
        name, number = model.name, 2
        while model.name in taken:
            model.name = f"{name}-{number}"
            number += 1
        taken.add(model.name)
    for model in models:
        aliases = model.keys.get("aliases")
        if isinstance(aliases, list):
            free = [alias for alias in aliases if _name_of(alias) not in taken]
            taken.update(map(_name_of, free))
            model.keys["aliases"] = free
            if not free:
                del model.keys["aliases"]
    return list(models)


def _name_of(alias: object) -> str:
    return str(alias["name"] if isinstance(alias, dict) else alias)
