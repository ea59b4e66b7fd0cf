"""What a source is, and where the known ones lie when nobody says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from swapper.errors import ConfigError
from swapper.importing import folders, llama_swap, ollama
from swapper.importing.draft import Draft

Reader: TypeAlias = Callable[[Path], Draft]


def read_source(source: str, environ: Mapping[str, str] = os.environ) -> Draft:
    """The draft of a named tool (`ollama`), a file or a folder; raises ConfigError."""
    path = Path(source).expanduser()
    if source in _STANDARD and not path.exists():
        return _standard(source, environ)
    if not path.exists():
        known = ", ".join(_STANDARD)
        raise ConfigError(f"{source}: there is no such file or folder, and no tool ({known})")
    draft = _reader(path)(path.absolute())
    if not draft.models:
        raise ConfigError(f"{source}: there is no model in it")
    return draft


def _reader(path: Path) -> Reader:
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            raise ConfigError(f"{path}: is a model file; name its folder")
        return _llama_swap
    for is_kind, read, inner in _KINDS:
        for place in (path, *(path / part for part in inner)):
            if is_kind(place):
                return lambda _, read=read, place=place: read(place.absolute())  # type: ignore[misc]
    return folders.read_folder


def _is_lm_studio(folder: Path) -> bool:
    """By its own settings beside it, or by the home it has."""
    home = folder.parent
    return folder.name == "models" and (
        home.name in (".lmstudio", "lm-studio") or (home / ".internal").is_dir()
    )


_KINDS: tuple[tuple[Callable[[Path], bool], Reader, tuple[str, ...]], ...] = (
    (ollama.is_store, ollama.read_store, ("models", ".ollama/models")),
    (folders.is_hub_cache, folders.read_hub_cache, ("hub",)),
    (_is_lm_studio, folders.read_lm_studio, ("models",)),
)


def _llama_swap(path: Path) -> Draft:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return llama_swap.translate(text, str(path))


def _standard(source: str, environ: Mapping[str, str]) -> Draft:
    """The first place of a tool that is there and holds something."""
    places, is_there, read = _STANDARD[source]
    candidates = list(places(environ))
    for place in candidates:
        if is_there(place):
            draft = read(place)
            if draft.models:
                return draft
    looked = ", ".join(map(str, candidates))
    raise ConfigError(f"{source}: there is nothing in {looked}; name the file or folder")


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _ollama_places(environ: Mapping[str, str]) -> Iterator[Path]:
    if given := environ.get("OLLAMA_MODELS"):
        yield Path(given)
    yield _home(environ) / ".ollama/models"
    yield Path("/usr/share/ollama/.ollama/models")
    yield Path("/var/lib/ollama/models")


def _lm_studio_places(environ: Mapping[str, str]) -> Iterator[Path]:
    home = _home(environ)
    settings = home / ".lmstudio/settings.json"
    try:
        yield Path(json.loads(settings.read_text(encoding="utf-8"))["downloadsFolder"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the folder is where it always is
    yield home / ".lmstudio/models"
    yield home / ".cache/lm-studio/models"


def _hub_places(environ: Mapping[str, str]) -> Iterator[Path]:
    if given := environ.get("HF_HUB_CACHE"):
        yield Path(given)
    elif given := environ.get("HF_HOME"):
        yield Path(given) / "hub"
    cache = environ.get("XDG_CACHE_HOME")
    yield (Path(cache) if cache else _home(environ) / ".cache") / "huggingface/hub"


def _llama_swap_places(environ: Mapping[str, str]) -> Iterator[Path]:
    base = environ.get("XDG_CONFIG_HOME")
    yield (Path(base) if base else _home(environ) / ".config") / "llama-swap/config.yaml"
    yield Path("/etc/llama-swap/config.yaml")


_Places: TypeAlias = Callable[[Mapping[str, str]], Iterator[Path]]
_STANDARD: dict[str, tuple[_Places, Callable[[Path], bool], Reader]] = {
    "llama-swap": (_llama_swap_places, Path.is_file, _llama_swap),
    "ollama": (_ollama_places, ollama.is_store, ollama.read_store),
    "lm-studio": (_lm_studio_places, Path.is_dir, folders.read_lm_studio),
    "huggingface": (_hub_places, folders.is_hub_cache, folders.read_hub_cache),
}
