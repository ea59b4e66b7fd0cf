"""`swapper check`: what a configuration would do on this machine."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import structlog

from swapper.cli.tables import print_plan
from swapper.core.events import Measured
from swapper.core.registry import Registry
from swapper.errors import ConfigError


def report(source: Path) -> int:
    """Print the plan and everything worth knowing; 1 if anything is wrong."""
    from swapper.config import load, plan_registry
    from swapper.places import state_dir
    from swapper.runtime.devices import survey
    from swapper.runtime.history import read_measured

    try:
        config = load(source)
    except ConfigError as error:
        click.echo(str(error), err=True)
        return 1
    _quiet()
    planned = plan_registry(config, survey({}).readings)
    found = read_measured(state_dir(), config.launches)
    print_plan(config, planned.registry, best_measured(planned.registry, found))
    for note in (*config.warnings, *planned.notes):
        click.echo(click.style(f"warning: {note}", fg="yellow"), err=True)
    for problem in config.problems:
        click.echo(click.style(f"error: {problem}", fg="red"), err=True)
    return 1 if config.problems else 0


def best_measured(
    registry: Registry, found: Mapping[tuple[str, str], Measured]
) -> dict[str, Measured]:
    """By model, what was measured of the best layout that was ever loaded."""
    return {
        name: found[name, variant.key]
        for name, spec in registry.models.items()
        for variant in reversed(spec.variants)
        if (name, variant.key) in found
    }


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
