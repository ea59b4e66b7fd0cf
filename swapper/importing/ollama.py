"""Ollama's store: manifests that name blobs. A model's blob is a GGUF file and used where it lies.

`manifests/HOST/NAMESPACE/NAME/TAG` is JSON with one layer for each part; a part with the digest
`sha256:abc` is the file `blobs/sha256-abc`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swapper.errors import ConfigError
from swapper.importing.draft import Draft, DraftModel, flow
from swapper.importing.model_files import ModelFile, file_model, look_at, unique
from swapper.importing.parameters import apply_parameters

_KIND = "application/vnd.ollama.image."
_OF_REQUESTS = ("aliases", "default", "system")
_MOST_TEXT = 60


def is_store(folder: Path) -> bool:
    """Whether the folder is an Ollama store."""
    return (folder / "manifests").is_dir() and (folder / "blobs").is_dir()


def read_store(folder: Path) -> Draft:
    """All models of a store; raises ConfigError where it cannot be read."""
    draft = Draft(origin=f"Ollama's store {folder}")
    try:
        manifests = sorted(path for path in (folder / "manifests").rglob("*") if path.is_file())
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: {error.strerror}") from None
    models = [_Model(folder, path).draft() for path in manifests if not path.name.startswith(".")]
    draft.models = unique(list(_merged(models)))
    return draft


def _merged(models: list[DraftModel]) -> Iterator[DraftModel]:
    """Tags of the same weights become aliases of the first, with what they say of requests."""
    seen: dict[str, list[DraftModel]] = {}
    for model in models:
        worker = {key: value for key, value in model.keys.items() if key not in _OF_REQUESTS}
        same = seen.setdefault(repr((worker, model.notes)), [])
        first = next((first for first in same if model.keys and _is_overlay(first, model)), None)
        if first is None:
            same.append(model)
            yield model
        else:
            first.keys["aliases"] = [*_aliases(first), *_as_aliases(first, model)]


def _is_overlay(first: DraftModel, other: DraftModel) -> bool:
    """Whether all that the first says of requests, the other says too: an alias inherits it."""
    if "system" in first.keys and "system" not in other.keys:
        return False
    return _defaults(first).keys() <= _defaults(other).keys()


def _as_aliases(first: DraftModel, model: DraftModel) -> list[object]:
    """The names of a model as aliases of another."""
    names = [model.name, *(str(alias) for alias in _aliases(model))]
    said: dict[str, object] = {}
    if (defaults := _defaults(model)) != _defaults(first):
        said["default"] = defaults
    if (system := model.keys.get("system")) != first.keys.get("system"):
        said["system"] = system
    return [{"name": name, **said} if said else name for name in names]


def _defaults(model: DraftModel) -> dict[str, object]:
    found = model.keys.get("default", {})
    return found if isinstance(found, dict) else {}


def _aliases(model: DraftModel) -> list[object]:
    aliases = model.keys.get("aliases", [])
    return aliases if isinstance(aliases, list) else []


class _Model:
    """One manifest."""

    def __init__(self, store: Path, manifest: Path) -> None:
        self._store = store
        self._manifest = manifest
        self._name, self._tag = _name_and_tag(manifest.relative_to(store / "manifests").parts)

    def draft(self) -> DraftModel:
        name = self._name if self._tag == "latest" else f"{self._name}:{self._tag}"
        try:
            manifest = self._json(self._manifest)
            layers = [(str(part["mediaType"]), self._blob(part)) for part in manifest["layers"]]
        except (KeyError, TypeError, ConfigError) as error:
            why = error if isinstance(error, ConfigError) else "is no manifest"
            return DraftModel(name, notes=[f"{self._manifest}: {why}"])
        parts = {kind.removeprefix(_KIND).split(";")[0]: blob for kind, blob in layers}
        return self._of_parts(name, parts)

    def _of_parts(self, name: str, parts: Mapping[str, Path]) -> DraftModel:
        if "model" not in parts:
            kind = "safetensors in pieces" if "tensor" in parts else "a model that runs elsewhere"
            return DraftModel(name, notes=[f"it is {kind}, which only Ollama itself can use"])
        blob = parts["model"]
        file = look_at(blob, parts.get("projector")) or ModelFile(
            blob, problem="is no language model"
        )
        model = file_model(name, file)
        if not model.keys:
            return model
        if self._tag == "latest":
            model.keys["aliases"] = [f"{self._name}:latest"]
        if "adapter" in parts:
            model.keys["lora"] = [str(parts["adapter"])]
        self._words(model, parts)
        return model

    def _words(self, model: DraftModel, parts: Mapping[str, Path]) -> None:
        """What requests are given: parameters, the system prompt, a conversation to start from."""
        try:
            if "params" in parts:
                apply_parameters(model, self._json(parts["params"]))
            if "system" in parts:
                text = parts["system"].read_text(encoding="utf-8", errors="replace").strip()
                if text:
                    model.keys["system"] = text
            if "messages" in parts:
                told = _short(flow(self._json(parts["messages"])))
                model.notes.append(f"messages: {told}")
        except (OSError, ConfigError, TypeError, AttributeError) as error:
            model.notes.append(f"a part that cannot be read: {error}")
        if "template" in parts:
            model.hints.append(
                "Ollama's template is not used: chats are laid out by the template in the file itself."
            )

    def _blob(self, part: Mapping[str, Any]) -> Path:
        """The file of a layer; `mediaType` and `digest` are the manifest's."""
        digest = str(part["digest"]).replace(":", "-")
        if "/" in digest:
            raise ConfigError(f"the digest '{digest}' is none")
        blob = self._store / "blobs" / digest
        if not blob.is_file() and str(part["mediaType"]) == f"{_KIND}model":
            raise ConfigError(f"its blob {digest[:19]} is not there; `ollama pull` brings it back")
        return blob

    def _json(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except ValueError:
            raise ConfigError(f"{path}: is not JSON") from None


def _name_and_tag(parts: tuple[str, ...]) -> tuple[str, str]:
    """As Ollama shows it: without the registry and the namespace that go without saying."""
    *place, tag = parts
    if place[:1] == ["registry.ollama.ai"]:
        place = place[1:]
        if place[:1] == ["library"]:
            place = place[1:]
    return "/".join(place), tag


def _short(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."
