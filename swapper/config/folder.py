"""A folder as a configuration: every GGUF in it is a model named after its file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from swapper.config.document import Document
from swapper.config.listen import Listen
from swapper.config.load import load_config
from swapper.config.models import ModelReader
from swapper.config.problems import Problem
from swapper.config.schema import DefaultsSection, LlamaCppModel
from swapper.config.values import Config, ConfiguredModel
from swapper.errors import ConfigError
from swapper.gguf import read_header, split_parts

DEMO_FOLDER = Path(__file__).parents[1] / "demo"
_LOCAL = (Listen("127.0.0.1", 8080),)


def load(source: Path) -> Config:
    """The configuration that a file is, or that a folder stands for; raises ConfigError."""
    return folder_config(source) if source.is_dir() else load_config(source)


def demo_config() -> Config:
    """What a bare `swapper serve` serves: the models that come with it; raises ConfigError."""
    if not any(DEMO_FOLDER.glob("*.gguf")):
        raise ConfigError("the demo models are not installed; name a configuration or a folder")
    if importlib.util.find_spec("llama_cpp") is None:
        raise ConfigError(
            "the demo models need llama.cpp, which is not installed; "
            "run `pip install 'llm-swapper[llamacpp]'`, or name a configuration"
        )
    # Each model lies there as safetensors too, for the engine that reads those.
    return replace(folder_config(DEMO_FOLDER), warnings=())


def folder_config(folder: Path) -> Config:
    """Every GGUF in the folder and in the folders directly in it; raises ConfigError if none is."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder")
    scan = _Scan(folder)
    models = dict(scan.models())
    if not models:
        found = "".join(f"\n{warning}" for warning in scan.warnings)
        raise ConfigError(f"{folder}: there is no GGUF model in this folder{found}")
    return Config(
        file=str(folder), listen=_LOCAL, models=models,
        problems=tuple(scan.reader.problems), warnings=tuple(scan.warnings),
    )  # fmt: skip


class _Scan:
    """One walk over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.warnings: list[Problem] = []
        self.reader = ModelReader(Document(str(folder), {}, {}), DefaultsSection(), self.folder)

    def models(self) -> Iterator[tuple[str, ConfiguredModel]]:
        taken: set[str] = set()
        for path in self._files():
            if not self._is_model(path):
                continue
            name = (
                path.stem if len(split_parts(path)) == 1 else path.stem[: -len("-00001-of-00001")]
            )
            if name in taken:
                name = f"{path.parent.name}/{name}"
            taken.add(name)
            section = LlamaCppModel(engine="llamacpp", path=str(path))
            yield name, self.reader.read(name, section)

    def _files(self) -> list[Path]:
        inner = [path for path in sorted(self.folder.iterdir()) if path.is_dir()]
        for place in [self.folder, *inner]:
            if any(place.glob("*.safetensors")):
                text = "holds safetensors, which no engine that is installed serves; skipped"
                self._warn(place, text)
        files = [*sorted(self.folder.glob("*.gguf")), *sorted(self.folder.glob("*/*.gguf"))]
        return [path for path in files if path.is_file()]

    def _is_model(self, path: Path) -> bool:
        """Whether to serve it. What is broken counts as a model: it answers with what is wrong."""
        if "mmproj" in path.name.lower():
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
