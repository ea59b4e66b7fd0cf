"""`swapper check`: what a configuration would do on this machine."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import click
import structlog

from swapper.cli.tables import print_plan
from swapper.errors import ConfigError


def report(source: Path) -> int:
    """Print the plan and everything worth knowing; 1 if anything is wrong."""
    from swapper.config import load, plan_registry
    from swapper.runtime.devices import survey

    try:
        config = load(source)
    except ConfigError as error:
        click.echo(str(error), err=True)
        return 1
    _quiet()
    planned = plan_registry(config, survey({}).readings)
    print_plan(config, planned.registry)
    for note in (*config.warnings, *planned.notes):
        click.echo(click.style(f"warning: {note}", fg="yellow"), err=True)
    for problem in config.problems:
        click.echo(click.style(f"error: {problem}", fg="red"), err=True)
    return 1 if config.problems else 0


def _quiet() -> None:
    """Log warnings only, and not between the lines of the table."""
    level = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(
        wrapper_class=level, logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )


def print_schema() -> None:
    """The JSON schema of a configuration."""
    from swapper.config import config_schema

    click.echo(json.dumps(config_schema(), indent=2))
