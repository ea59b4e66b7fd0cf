"""`swapper bench`: measure an endpoint; a table here, and a page to keep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from swapper.measure.asking import Asker, measure
from swapper.measure.page import level_cells, render_page, seconds_text
from swapper.measure.summary import Report, turns_by_model

PIPED_WIDTH = 200  # a table that another program reads is not folded


def bench(
    url: str,
    models: Sequence[str],
    concurrencies: Sequence[int],
    rounds: int,
    max_tokens: int,
    prompt: str,
    api_key: str,
    html: Path | None,
    as_json: bool,
) -> int:
    """Measure and report; the exit status is 1 if a model did not answer at all."""
    at = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M %Z")
    report = Report(url, at, max_tokens)
    console = Console(stderr=True, highlight=False, markup=False)
    with console.status("asking") as status:
        asyncio.run(
            _run(
                report,
                models,
                concurrencies,
                rounds,
                prompt,
                api_key,
                lambda text: status.update(text),
            )
        )
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    elif report.levels:
        _print(report)
    for error in report.errors:
        click.echo(f"Error: {error}", err=True)
    if html is not None and report.levels:
        try:
            html.write_text(render_page(report), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{html}: cannot be written: {error.strerror}") from None
        click.echo(f"{html}: the same with plots", err=True)
    return 0 if len(report.first_asked) == len(models) else 1


async def _run(
    report: Report,
    models: Sequence[str],
    concurrencies: Sequence[int],
    rounds: int,
    prompt: str,
    api_key: str,
    say: Callable[[str], None],
) -> None:
    async with Asker(report.url, api_key, prompt) as asker:
        await measure(asker, report, models, concurrencies, rounds, say)


def _print(report: Report) -> None:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("model", overflow="fold")
    for name in (
        "at once", "answers", "failed", "first p50", "p95", "between p50", "p95", "tokens/s", "answers/s",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for level in report.levels:
        table.add_row(*level_cells(level))
    console.print(table)
    turns = turns_by_model(report.turns)
    for first in report.first_asked:
        text = f"{first.model}: first answer after {seconds_text(first.first_s)}"
        if times := turns.get(first.model):
            text += f", in turns with others after {seconds_text(sum(times) / len(times))}"
            text += f" (worst {seconds_text(max(times))})"
        console.print(text)
