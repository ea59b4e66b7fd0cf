"""What is printed as a table, and how numbers look in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from swapper.config import Config
from swapper.config.units import format_duration, format_size
from swapper.core.events import Measured
from swapper.core.registry import Bytes, ModelSpec, Registry

PIPED_WIDTH = 240  # a table that another program reads is not folded


def print_json(value: Any) -> None:
    """The server's own answer."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_running(answer: Any) -> None:
    """The workers of `GET /running`."""
    workers = answer["running"]
    if not workers:
        click.echo("no model is loaded")
        return
    memory = "memory (~estimate)"
    names = ("model", "engine", "state", "in flight", "waiting", memory, "idle", "expires")
    _print(names, map(_running_row, workers))


def print_models(answer: Any) -> None:
    """The models of `GET /v1/models`."""
    rows = (
        (
            model["id"],
            ", ".join(model.get("aliases", ())),
            model.get("engine", ""),
            model.get("state", ""),
            str(model.get("context_length") or "-"),
        )
        for model in answer["data"]
    )
    _print(("model", "aliases", "engine", "state", "context"), rows)


def print_decisions(answer: Any) -> None:
    """The decision log, oldest first, as one reads a story."""
    rows = [
        (
            datetime.fromtimestamp(line["at"], UTC).astimezone().strftime("%m-%d %H:%M:%S"),
            line["model"],
            line["action"],
            line["reason"],
        )
        for line in reversed(answer["decisions"])
    ]
    if not rows:
        click.echo("nothing has been decided yet")
        return
    _print(("time", "model", "action", "why"), rows)


def print_plan(config: Config, registry: Registry, measured: Mapping[str, Measured]) -> None:
    """What every model would take, what it was measured to take, and what there is."""
    listen = ", ".join(map(str, config.listen))
    keys = f"{len(config.api_keys)} API keys" if config.api_keys else "no API keys"
    click.echo(f"{config.file}: listens on {listen}, {keys}")
    click.echo(f"memory for models: {_sizes(registry.budgets)}")
    names = ("model", "engine", "memory (estimated)", "measured", "layers", "parallel", "ttl")
    rows = (_plan_row(spec, measured.get(spec.name)) for spec in registry.models.values())
    _print((*names, "aliases", ""), rows)


def _plan_row(spec: ModelSpec, measured: Measured | None) -> tuple[str, ...]:
    best = spec.variants[0]
    layers = best.settings.get("gpu_layers")
    flags = ("pinned" if spec.pin else "", "preloaded" if spec.preload else "")
    return (
        spec.name,
        spec.engine,
        _sizes(best.needs) or ("-" if spec.engine == "url" else "unknown until measured"),
        "-" if measured is None else _truth(measured),
        "" if layers is None else ("on the CPU" if layers == 0 else f"{layers} on GPU"),
        str(spec.parallel),
        "never" if spec.ttl_s == 0 else format_duration(spec.ttl_s),
        ", ".join(spec.aliases),
        ", ".join(flag for flag in flags if flag),
    )


def _truth(measured: Measured) -> str:
    sizes = _sizes(measured.memory)
    return f"{sizes}{', ' if sizes else ''}loads in {measured.load_s:.1f} s"


def _running_row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    progress = worker.get("progress")
    state = str(worker["state"])
    if state == "starting" and progress:
        state += f" {progress:.0%}"
    if worker.get("pin"):
        state += ", pinned"
    return (
        worker["model"],
        worker["engine"],
        state,
        str(worker["in_flight"]),
        str(worker["waiting"]),
        _memory(worker["memory"]),
        _ago(worker.get("idle_s")),
        "never" if worker.get("ttl") == 0 else _ago(worker.get("expires_in_s")),
    )


def _memory(memory: Mapping[str, Bytes]) -> str:
    """What was measured of every device, and what had been estimated."""
    measured, estimated = memory.get("measured") or {}, memory.get("estimated") or {}
    parts = [f"{device} {_size(measured, estimated, device)}" for device in measured]
    parts += [
        f"{device} ~{format_size(size)}"
        for device, size in estimated.items()
        if device not in measured
    ]
    return ", ".join(parts) or "-"


def _size(measured: Bytes, estimated: Bytes, device: str) -> str:
    truth, guess = format_size(measured[device]), format_size(estimated.get(device, 0))
    return truth if guess == truth or device not in estimated else f"{truth} (~{guess})"


def _sizes(sizes: Bytes) -> str:
    return ", ".join(f"{device} {format_size(size)}" for device, size in sizes.items())


def _ago(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(round(max(0.0, seconds)))


def _print(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
