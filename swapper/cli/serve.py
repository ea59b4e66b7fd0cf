"""`swapper serve`: a configuration to a running server."""

from __future__ import annotations

import gc
from os import EX_CONFIG  # tells a service manager that starting again will not help
from pathlib import Path
from typing import TYPE_CHECKING

import click

from swapper.errors import ConfigError

if TYPE_CHECKING:
    from swapper.config import Config


def run_server(source: Path | None, listen: str | None, watch: bool) -> int:
    """Serve until told to end; the exit code. Without a source, the demo models."""
    if watch and (source is None or source.is_dir()):
        raise click.UsageError("--watch needs a configuration file")
    gc.disable()  # what is made while everything is imported stays; on again once it serves
    try:
        return _start(source, listen, watch)
    except ConfigError as error:
        click.echo(str(error), err=True)
        return EX_CONFIG
    finally:
        gc.enable()


def _start(source: Path | None, listen: str | None, watch: bool) -> int:
    from swapper.listening import EXIT_CANNOT_LISTEN, on_passed, opened, say_cannot_listen
    from swapper.runtime.notify import ServiceManager
    from swapper.watching import WatchedFile

    service = ServiceManager()
    watched = WatchedFile(source) if watch and source is not None else None

    def read() -> Config:
        return on_passed(service.sockets, read_config(source, listen))

    try:
        config = read()
    except ValueError as error:
        raise click.UsageError(f"--listen: {error}") from None
    try:
        listeners = service.sockets or [opened(address) for address in config.listen]
    except OSError as error:
        say_cannot_listen(config.listen, error)
        return EXIT_CANNOT_LISTEN
    from swapper.app import Start, serve

    return serve(Start(config, read, watched, service, listeners))


def read_config(source: Path | None, listen: str | None) -> Config:
    """The configuration as it is now; raises ConfigError, and ValueError for a bad `listen`."""
    from swapper.config import demo_config, load, parse_listen

    config = demo_config() if source is None else load(source)
    return config if listen is None else config.listening_on((parse_listen(listen),))
