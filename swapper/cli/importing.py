"""`swapper import`: another tool's models as a configuration."""

from __future__ import annotations

import os
from pathlib import Path

import click

from swapper.errors import ConfigError


def import_source(source: str, output: str, force: bool) -> int:
    """Write the configuration and say what is not in it; the exit status."""
    from swapper.config.load import parse_config
    from swapper.importing.adding import write_whole
    from swapper.importing.draft import render
    from swapper.importing.sources import read_source

    path = Path(output)
    if output != "-" and path.exists() and not force:
        raise click.ClickException(
            f"{path} is there already; --force replaces it, -o names another"
        )
    try:
        draft = read_source(source)
        served = [model for model in draft.models if model.keys]
        text = render(draft)
        if not served:
            why = "; ".join(note for model in draft.models for note in model.notes[:1])
            raise ConfigError(f"{source}: nothing in it can be served: {why}")
        if output == "-":
            click.echo(text, nl=False)
        else:
            write_whole(path, text)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    say = f"{_models(len(served))} from {draft.origin}"
    click.echo(say if output == "-" else f"{path}: {say}", err=True)
    left_out = list(draft.left_out())
    if left_out:
        click.echo("not carried over:", err=True)
    for place, note in left_out:
        click.echo(f"  {place[1]}: {note}" if place else f"  {note}", err=True)
    try:
        config = parse_config(text, str(path), path.parent.absolute(), os.environ)
    except ConfigError as error:
        click.echo(click.style(f"before it can be served:\n{error}", fg="yellow"), err=True)
        return 0
    for problem in config.problems:
        click.echo(click.style(f"warning: {problem}", fg="yellow"), err=True)
    return 0


def _models(number: int) -> str:
    return "1 model" if number == 1 else f"{number} models"
