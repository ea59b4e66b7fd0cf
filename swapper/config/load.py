"""From a configuration file to a Config: what needs several keys at once, or a look at the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from swapper.config.checking import check
from swapper.config.document import Document, read_document
from swapper.config.models import ModelReader
from swapper.config.problems import KeyPath, Problem, raise_if_any
from swapper.config.schema import ApiKeyEntry, ConfigFile
from swapper.config.values import ApiKey, Config, ConfiguredModel, exposure
from swapper.core.registry import nearest
from swapper.errors import ConfigError


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration file. Raises ConfigError naming everything that is wrong with it.

    What keeps only one model from being served is no error: it is in `Config.problems`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    return parse_config(text, str(path), path.parent.absolute(), environ)


def parse_config(text: str, file: str, folder: Path, environ: Mapping[str, str]) -> Config:
    """The same for a text; relative paths in it start from `folder`."""
    document = read_document(text, file, environ)
    told: list[Problem] = []
    if is_llama_swap(document.value):
        from swapper.importing.llama_swap import read_llama_swap

        document, told = read_llama_swap(text, file, environ)
    config = _Loader(document, check(document), folder).config()
    return replace(config, warnings=(*config.warnings, *told))


OURS = ("engine", "engines", "path", "url")  # keys of models


def is_llama_swap(value: object) -> bool:
    """Whether a configuration is llama-swap's: models with `cmd`, and none with what only ours have, be it
    the name of the port, which is ${PORT} there."""
    models = value.get("models") if isinstance(value, Mapping) else None
    if not isinstance(models, Mapping):
        return False
    sections = [model for model in models.values() if isinstance(model, Mapping)]
    commands = [str(section["cmd"]) for section in sections if "cmd" in section]
    is_ours = any(key in section for section in sections for key in OURS)
    is_ours = is_ours or any("${port}" in command for command in commands)
    return bool(commands) and not is_ours


class _Loader:
    """Gathers what is wrong with the whole while it puts the parts together."""

    def __init__(self, document: Document, checked: ConfigFile, folder: Path) -> None:
        self.document = document
        self.checked = checked
        self.folder = folder
        self.errors: list[Problem] = []

    def config(self) -> Config:
        reader = ModelReader(self.document, self.checked.defaults, self.folder)
        models = {
            name: self._grouped(reader.read(name, section))
            for name, section in self.checked.models.items()
        }
        self.errors += [*self._name_clashes(), *self._unknown_members(), *reader.errors]
        keys = tuple(self._api_keys())
        listen = tuple(self.checked.listen)
        if text := exposure(listen, bool(keys), self.checked.insecure):
            self._error(("listen",), text)
        raise_if_any(self.errors)
        return Config(
            file=self.document.file,
            listen=listen,
            models=models,
            api_keys=keys,
            key_in_path=self.checked.key_in_path,
            insecure=self.checked.insecure,
            allowed_origins=tuple(self.checked.allowed_origins),
            allowed_hosts=tuple(self.checked.allowed_hosts),
            keepalive_after_s=self.checked.defaults.keepalive_after,
            loading_text=self.checked.defaults.loading_text,
            capture=self.checked.capture,
            memory=self.checked.memory,
            limits=self._limits(),
            problems=tuple(reader.problems),
            warnings=tuple(reader.warnings),
        )

    def _error(self, path: KeyPath, text: str) -> None:
        self.errors.append(self.document.problem(path, text))

    def _limits(self) -> dict[str, int]:
        limits = {name: group.max_loaded for name, group in self.checked.groups.items()}
        return {"": self.checked.max_loaded, **limits} if self.checked.max_loaded else limits

    def _grouped(self, model: ConfiguredModel) -> ConfiguredModel:
        """The model with the groups it is a member of; `""` is for all that have a process."""
        name = model.spec.name
        groups = [group for group, of in self.checked.groups.items() if name in of.members]
        every = () if model.spec.engine == "url" else ("",)
        return replace(model, spec=replace(model.spec, groups=(*every, *groups)))

    def _name_clashes(self) -> Iterator[Problem]:
        owners: dict[str, str] = {name: name for name in self.checked.models}
        for name, section in self.checked.models.items():
            for index, alias in enumerate(entry.name for entry in section.aliases):
                path = ("models", name, "aliases", index)
                if owners.setdefault(alias, name) != name or alias == name:
                    owner = owners[alias]
                    yield self.document.problem(path, f"'{alias}' is already a name of '{owner}'")

    def _unknown_members(self) -> Iterator[Problem]:
        known = self.checked.models
        for group, of in self.checked.groups.items():
            if not group:
                yield self.document.problem(("groups", group), "a group needs a name")
            for index, member in enumerate(of.members):
                if member not in known:
                    near = nearest(member, known)
                    hint = f"; did you mean '{near}'?" if near else ""
                    path = ("groups", group, "members", index)
                    yield self.document.problem(path, f"there is no model '{member}'{hint}")

    def _api_keys(self) -> Iterator[ApiKey]:
        seen: dict[str, int] = {}
        for index, entry in enumerate(self.checked.api_keys):
            key = self._key(index, entry)
            if not key:
                continue
            if key in seen:
                self._error(("api_keys", index), f"is the same key as api_keys[{seen[key]}]")
            seen[key] = index
            yield ApiKey(
                entry.name or f"key-{index + 1}",
                key,
                entry.priority,
                frozenset(entry.scopes),
                frozenset(self._models_of(index, entry)),
                entry.rate,
            )

    def _models_of(self, index: int, entry: ApiKeyEntry) -> Iterator[str]:
        owners = {name: name for name in self.checked.models}
        for name, section in self.checked.models.items():
            owners |= {alias.name: name for alias in section.aliases}
        for place, model in enumerate(entry.models):
            if model not in owners:
                near = nearest(model, owners)
                hint = f"; did you mean '{near}'?" if near else ""
                path: KeyPath = ("api_keys", index, "models", place)
                self._error(path, f"there is no model '{model}'{hint}")
            yield owners.get(model, model)

    def _key(self, index: int, entry: ApiKeyEntry) -> str | None:
        path: KeyPath = ("api_keys", index)
        if (entry.key is None) == (entry.file is None):
            self._error(path, "needs either key or file")
            return entry.key
        if entry.file is None:
            return entry.key
        try:
            key = (self.folder / entry.file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            self._error((*path, "file"), f"{entry.file} cannot be read: {error}")
            return None
        if not key:
            self._error((*path, "file"), f"{entry.file} is empty")
        return key
