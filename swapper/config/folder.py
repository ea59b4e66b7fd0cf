"""A folder as a configuration: every GGUF in it is a model named after its file, every folder of
safetensors one named after the folder. Where both have one name, the GGUF is served. A GGUF with a fitting
`mmproj` file beside it takes images."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from swapper.checkpoint import is_checkpoint
from swapper.config.document import Document
from swapper.config.listen import Listen
from swapper.config.load import load_config
from swapper.config.models import ModelReader
from swapper.config.problems import Problem
from swapper.config.schema import DefaultsSection, LlamaCppModel, PagedModel
from swapper.config.values import Config, ConfiguredModel
from swapper.errors import ConfigError
from swapper.gguf import read_header, split_parts
from swapper.importing.model_files import is_projector, projector_of

DEMO_FOLDER = Path(__file__).parents[1] / "demo"
_LOCAL = (Listen("127.0.0.1", 8080),)


def load(source: Path) -> Config:
    """The configuration that a file is, or that a folder stands for; raises ConfigError."""
    return folder_config(source) if source.is_dir() else load_config(source)


def demo_config() -> Config:
    """What a bare `swapper serve` serves: the models that come with it, by every engine that is
    installed; raises ConfigError."""
    if not any(DEMO_FOLDER.glob("*.gguf")):
        raise ConfigError("the demo models are not installed; name a configuration or a folder")
    if not _has_engine("llama_cpp") and not _has_engine("torch"):
        raise ConfigError(
            "the demo models need llama.cpp, which is not installed; "
            "run `pip install 'llm-swapper[llamacpp]'`, or name a configuration"
        )
    config = _scanned(DEMO_FOLDER, has_gguf=_has_engine("llama_cpp"), twin="{}-paged")
    return replace(config, warnings=())


def folder_config(folder: Path) -> Config:
    """Every model in the folder and in the folders directly in it; raises ConfigError if none is."""
    return _scanned(folder)


def _scanned(folder: Path, *, has_gguf: bool = True, twin: str | None = None) -> Config:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder")
    scan = _Scan(folder, has_gguf=has_gguf, twin=twin)
    models = dict(scan.models())
    if not models:
        found = "".join(f"\n{warning}" for warning in scan.warnings)
        raise ConfigError(f"{folder}: there is no model in this folder{found}")
    return Config(
        file=str(folder), listen=_LOCAL, models=models,
        problems=tuple(scan.reader.problems), warnings=tuple(scan.warnings),
    )  # fmt: skip


class _Scan:
    """One walk over a folder. `twin`: what safetensors are called beside a GGUF of the same name; None:
    they are not served."""

    def __init__(self, folder: Path, *, has_gguf: bool, twin: str | None) -> None:
        self.has_gguf = has_gguf
        self.twin = twin
        self.folder = folder.absolute()
        self.warnings: list[Problem] = []
        self.reader = ModelReader(Document(str(folder), {}, {}), DefaultsSection(), self.folder)

    def models(self) -> Iterator[tuple[str, ConfiguredModel]]:
        taken: set[str] = set()
        for path in self._ggufs():
            if not self._is_model(path):
                continue
            name = (
                path.stem if len(split_parts(path)) == 1 else path.stem[: -len("-00001-of-00001")]
            )
            if name in taken:
                name = f"{path.parent.name}/{name}"
            taken.add(name)
            beside = [file for file in path.parent.glob("*.gguf") if is_projector(file)]
            projector = projector_of(path, beside)
            section = LlamaCppModel(
                engine="llamacpp",
                path=str(path),
                mmproj=None if projector is None else str(projector),
            )
            yield name, self.reader.read(name, section)
        for place in self._checkpoints():
            name = place.name
            if name in taken and self.twin is not None:
                name = self.twin.format(name)
            if name not in taken:
                taken.add(name)
                yield name, self.reader.read(name, PagedModel(engine="paged", path=str(place)))

    def _ggufs(self) -> list[Path]:
        if not self.has_gguf:
            return []
        files = [*sorted(self.folder.glob("*.gguf")), *sorted(self.folder.glob("*/*.gguf"))]
        return [path for path in files if path.is_file()]

    def _checkpoints(self) -> Iterator[Path]:
        inner = [path for path in sorted(self.folder.iterdir()) if path.is_dir()]
        for place in [self.folder, *inner]:
            if not any(place.glob("*.safetensors")):
                continue
            if not is_checkpoint(place):
                self._warn(place, "holds safetensors and no config.json; skipped")
            elif not _has_engine("torch"):
                text = "holds safetensors, which no engine that is installed serves; skipped"
                self._warn(place, text)
            else:
                yield place

    def _is_model(self, path: Path) -> bool:
        """Whether to serve it. What is broken counts as a model: it answers with what is wrong."""
        if is_projector(path):
            return False
        try:
            header = read_header(path)
        except ConfigError as error:
            if "later part" not in str(error):
                self._warn(path, f"{error}; skipped")
            return False
        kind = header.metadata.get("general.type", "model")
        if header.architecture == "clip" or kind != "model" or not header.tensors:
            self._warn(path, "is no language model; skipped")
            return False
        return True

    def _warn(self, path: Path, text: str) -> None:
        place = str(path.relative_to(self.folder)) if path != self.folder else ""
        self.warnings.append(Problem(str(self.folder), None, place, text))


def _has_engine(library: str) -> bool:
    """Whether what the engine is made of is installed."""
    return importlib.util.find_spec(library) is not None
