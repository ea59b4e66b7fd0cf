"""`swapper serve`: a configuration to a running server."""

from __future__ import annotations

from os import EX_CONFIG  # tells a service manager that starting again will not help
from pathlib import Path

import click

from swapper.errors import ConfigError


def run_server(source: Path | None, listen: str | None) -> int:
    """Serve until told to end; the exit code. Without a source, the demo models."""
    from swapper.config import Config, demo_config, load, parse_listen

    try:
        config: Config = demo_config() if source is None else load(source)
        if listen is not None:
            config = config.listening_on((parse_listen(listen),))
    except ValueError as error:
        raise click.UsageError(f"--listen: {error}") from None
    except ConfigError as error:
        click.echo(str(error), err=True)
        return EX_CONFIG
    from swapper.app import serve

    return serve(config)
