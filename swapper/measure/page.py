"""The report as one HTML page: plots as SVG, no script, nothing from elsewhere, dark and light."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from swapper.measure.summary import Level, Report, turns_by_model

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 240, 56, 32, 12
COLOURS = 6

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #6a737d; --line: #d8dee4; --back: #ffffff;
  --s0: #0b6bcb; --s1: #c2410c; --s2: #15803d; --s3: #7e22ce; --s4: #be123c; --s5: #0f766e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --dim: #9aa4ae; --line: #343b43;
  --back: #14171a; --s0: #6cb6ff; --s1: #ff9f6b; --s2: #6bdb8f; --s3: #c9a2ff; --s4: #ff8fa3; --s5: #5eead4; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; } p.dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } .scroll { overflow-x: auto; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
svg text { fill: var(--dim); font-size: 11px; } .grid { stroke: var(--line); }
"""


def render_page(report: Report) -> str:
    """The whole page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>swapper bench</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}{_series_style()}</style></head><body>",
        f"<h1>{escape(report.url)}</h1>",
        f'<p class="dim">{escape(report.at)}; answers of up to {report.max_tokens} tokens, streamed</p>',
        _levels_table(report.levels),
        '<div class="plots">',
        _plot(report.levels, "Throughput", "tokens/s", {"": lambda level: level.tokens_per_s}),
        _plot(
            report.levels,
            "First token",
            "s",
            {"p50": lambda level: level.first_p50_s, "p95": lambda level: level.first_p95_s},
        ),
        _plot(
            report.levels,
            "Between tokens",
            "ms",
            {
                "p50": lambda level: level.gap_p50_s * 1000,
                "p95": lambda level: level.gap_p95_s * 1000,
            },
        ),
        "</div>",
        _turns(report),
        _errors(report),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _series_style() -> str:
    rules = (
        f".s{n} {{ stroke: var(--s{n}); }} .f{n} {{ fill: var(--s{n}); }}\n" for n in range(COLOURS)
    )
    return "".join(rules)


def _levels_table(levels: Sequence[Level]) -> str:
    names = (
        "model", "at once", "answers", "failed", "first p50", "first p95", "between p50",
        "between p95", "tokens/s", "answers/s",
    )  # fmt: skip
    return _table(names, [level_cells(level) for level in levels])


def level_cells(level: Level) -> tuple[str, ...]:
    """A level as the cells of a table, here and on the terminal."""
    return (
        level.model,
        str(level.concurrency),
        str(level.num_answers),
        str(level.num_failed),
        seconds_text(level.first_p50_s),
        seconds_text(level.first_p95_s),
        seconds_text(level.gap_p50_s),
        seconds_text(level.gap_p95_s),
        _number_text(level.tokens_per_s),
        _number_text(level.answers_per_s),
    )


def seconds_text(seconds: float) -> str:
    """A time with a unit that suits it; a dash where nothing was measured."""
    if math.isnan(seconds):
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _number_text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _turns(report: Report) -> str:
    rows = []
    turns = turns_by_model(report.turns)
    for first in report.first_asked:
        times = turns.get(first.model, [])
        mean = sum(times) / len(times) if times else math.nan
        worst = max(times, default=math.nan)
        rows.append((first.model, *map(seconds_text, (first.first_s, mean, worst))))
    if not rows:
        return ""
    names = ("model", "first answer ever", "in turns, mean", "in turns, worst")
    said = "Seconds to the first token: of the very first answer, a load included, and when models are asked in turns."
    return f"<h2>Loads and swaps</h2><p>{said}</p>{_table(names, rows)}"


def _errors(report: Report) -> str:
    if not report.errors:
        return ""
    items = "".join(f"<li>{escape(error)}</li>" for error in report.errors)
    return f"<h2>What failed</h2><ul>{items}</ul>"


def _plot(
    levels: Sequence[Level],
    title: str,
    unit: str,
    values: Mapping[str, Callable[[Level], float]],
) -> str:
    """Values over clients at once, a line for each model and each of `values`."""
    series: dict[str, dict[int, float]] = {}
    for level in levels:
        for name, value in values.items():
            if not math.isnan(number := value(level)):
                series.setdefault(f"{level.model} {name}".strip(), {})[level.concurrency] = number
    if not series:
        return ""
    steps = sorted({level.concurrency for level in levels})
    most = _nice(max(max(line.values()) for line in series.values()))
    parts = [_grid(steps, most)]
    legend = []
    for index, (name, line) in enumerate(series.items()):
        colour = index % COLOURS
        points = [(_x(steps, step), _y(number, most)) for step, number in sorted(line.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dots = "".join(
            f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points
        )
        parts.append(
            f'<polyline class="s{colour}" fill="none" stroke-width="2" points="{path}"/>{dots}'
        )
        y = TOP + 14 * index
        legend.append(
            f'<rect class="f{colour}" x="{LEFT + 8}" y="{y}" width="8" height="8"/>'
            f'<text x="{LEFT + 20}" y="{y + 8}">{escape(name)}</text>'
        )
    label = f"{title} in {unit} over clients at once"
    return (
        f"<figure><figcaption>{escape(title)} ({escape(unit)})</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}{''.join(legend)}</svg></figure>"
    )


def _grid(steps: Sequence[int], most: float) -> str:
    parts = []
    for quarter in range(5):
        value = most * quarter / 4
        y = _y(value, most)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for step in steps:
        x = _x(steps, step)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{step}</text>')
    return "".join(parts)


def _x(steps: Sequence[int], step: int) -> float:
    room = WIDTH - LEFT - 32
    return LEFT + 12 + (room * steps.index(step) / (len(steps) - 1) if len(steps) > 1 else room / 2)


def _y(value: float, most: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / most)


def _nice(value: float) -> float:
    """A round number that is not less."""
    if value <= 0:
        return 1.0
    base = 10.0 ** math.floor(math.log10(value))
    return next(base * step for step in (1, 2, 4, 5, 8, 10) if base * step >= value * (1 - 1e-9))
