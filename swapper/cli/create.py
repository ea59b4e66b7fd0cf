"""`swapper create`: a Modelfile as a model of the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from swapper.config.load import load_config
from swapper.errors import ConfigError
from swapper.importing.adding import add_alias_to_file, add_to_file
from swapper.importing.draft import DraftModel
from swapper.importing.model_files import ModelFile, file_model, look_at
from swapper.importing.modelfile import Modelfile, parse_modelfile
from swapper.importing.parameters import apply_parameters


def create_model(name: str, modelfile: Path, config: Path) -> None:
    """Add what the Modelfile describes to the configuration file; raises ClickException."""
    try:
        said = parse_modelfile(_read(modelfile), str(modelfile))
        notes = _create(name, said, modelfile.parent.absolute(), config)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    for note in notes:
        click.echo(f"not carried over: {note}", err=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _create(name: str, said: Modelfile, folder: Path, config: Path) -> list[str]:
    """Write the model, or an alias where the same worker will do; what was not carried over."""
    path = folder / Path(said.base).expanduser()
    if path.exists():
        base = _of_file(name, path.resolve())
        _lay_over(base, said, folder)
        add_to_file(config, base)
        click.echo(f"{config}: {name} is in it now; `swapper reload` tells a running server")
        return base.notes
    known, keys = _of_config(said.base, config)
    model = DraftModel(name, {"engine": keys["engine"]})
    _lay_over(model, said, folder)
    of_worker = model.keys.keys() - {"engine", "default", "system"}
    if of_worker:
        base = DraftModel(name, {**_inherited(keys), **model.keys}, model.notes)
        if isinstance(before := keys.get("default"), Mapping) and before:
            base.keys["default"] = {**before, **_mapping(model.keys.get("default"))}
        add_to_file(config, base)
    else:
        alias = {key: value for key, value in model.keys.items() if key != "engine"}
        add_alias_to_file(config, known, {"name": name, **alias})
    how = f"with {', '.join(sorted(of_worker))} of its own" if of_worker else f"served by {known}"
    click.echo(f"{config}: {name} is in it now, {how}")
    return model.notes


def _lay_over(model: DraftModel, said: Modelfile, folder: Path) -> None:
    apply_parameters(model, said.parameters)
    if said.system is not None:
        model.keys["system"] = said.system
    if said.adapters:
        if model.keys["engine"] != "llamacpp":
            raise ConfigError("ADAPTER goes with GGUF files only")
        model.keys["lora"] = [str(folder / Path(path).expanduser()) for path in said.adapters]
    for role, text in said.messages:
        model.notes.append(f"MESSAGE {role} {text[:40]} (clients send conversations whole)")


def _of_file(name: str, path: Path) -> DraftModel:
    if path.is_dir():
        file: ModelFile | None = ModelFile(path)
    else:
        file = look_at(path)
    model = file_model(name, file or ModelFile(path, problem="is no language model"))
    if not model.keys:
        raise ConfigError(model.notes[0])
    return model


def _of_config(base: str, config: Path) -> tuple[str, dict[str, object]]:
    """The name and the keys of a model of the configuration, by one of its names."""
    hint = f"FROM {base}: there is no such file, and no such model in {config}"
    if not config.exists():
        raise ConfigError(f"{hint}, which is not there; `swapper pull` fetches models")
    models = load_config(config, os.environ).models
    for name, model in models.items():
        names = {name, *model.spec.aliases}
        if base in names or f"{base}:latest" in names or base.removesuffix(":latest") in names:
            return name, model.section.model_dump(mode="python", exclude_unset=True)
    raise ConfigError(f"{hint}; `swapper pull` fetches models")


def _inherited(keys: Mapping[str, object]) -> dict[str, object]:
    """What a model takes from the one it is made from: how it is served, not what it is called."""
    return {
        key: value
        for key, value in keys.items()
        if key in ("engine", "path", "mmproj", "role", "lora")
    }


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}
