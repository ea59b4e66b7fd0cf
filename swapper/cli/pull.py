"""`swapper pull`: a model from the hub, onto the disk and into the configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swapper.config.units import format_size
from swapper.errors import ConfigError

if TYPE_CHECKING:
    from swapper.hub.choosing import Choice
    from swapper.hub.repository import Repository


def pull_model(
    text: str, name: str | None, folder: Path | None, config: Path | None, revision: str | None
) -> None:
    """Fetch what `text` names and add it to `config`; raises ClickException."""
    try:
        from swapper.hub.repository import Repository
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is not installed; run `pip install 'llm-swapper[hub]'`"
        ) from None
    from swapper.hub.choosing import choose, parse_wanted
    from swapper.hub.repository import check_room

    try:
        wanted = parse_wanted(text)
        repository = Repository(wanted.repository, revision)
        choice = choose(wanted, repository.files())
        place = (folder or models_folder()).absolute() / wanted.repository
        check_room(choice, place)
        _fetch(repository, choice, place)
        _add(choice, place, name or _name_of(wanted.repository), config)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def models_folder() -> Path:
    """Where models are kept when nobody says."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "swapper" / "models"


def _name_of(repository: str) -> str:
    """What clients call it: the repository's name, without what says that it is a GGUF."""
    name = repository.rpartition("/")[2]
    return name[:-5] if name.lower().endswith(("-gguf", "_gguf", ".gguf")) else name


def _fetch(repository: Repository, choice: Choice, place: Path) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    click.echo(f"{len(choice.files)} files, {format_size(choice.num_bytes)}, to {place}", err=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        for file in choice.files:
            task = bars.add_task(file.path, total=file.size)
            repository.fetch(file, place, lambda num, task=task: bars.advance(task, num))  # type: ignore[misc]
            bars.update(task, completed=file.size)


def _add(choice: Choice, place: Path, name: str, config: Path | None) -> None:
    """Name the model in the configuration, or say how it would be."""
    from swapper.importing.adding import add_to_file
    from swapper.importing.draft import render_model
    from swapper.importing.model_files import ModelFile, file_model, look_at

    if choice.main is None:
        file = ModelFile(place)
    else:
        projector = place / choice.projector if choice.projector else None
        main = place / choice.main
        file = look_at(main, projector) or ModelFile(main, problem="is no language model")
    model = file_model(name, file)
    if not model.keys:
        raise ConfigError(model.notes[0])
    if config is None:
        click.echo(render_model(model), nl=False)
    elif add_to_file(config, model):
        click.echo(f"{config}: {name} is in it now; `swapper reload` tells a running server")
    else:
        click.echo(f"{config}: {name} was in it already")
