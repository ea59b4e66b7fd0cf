from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from swapper.measure.page import render_page
from swapper.measure.summary import Answer, Report, Turn, level_of, percentile


def test_percentiles() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95)) == (50, 95)
    assert percentile([7.0], 0.95) == 7
    assert math.isnan(percentile([], 0.5))


def test_a_level() -> None:
    answers = [
        Answer(0.0, (1.0, 1.1, 1.3), 1.3, 30),
        Answer(0.5, (1.0, 2.0), 2.0, 20),
        Answer(0.6, error="503: busy"),
    ]
    level = level_of("m", 3, answers)
    assert (level.num_answers, level.num_failed) == (2, 1)
    assert (level.first_p50_s, level.first_p95_s) == (0.5, 1.0)
    assert level.gap_p50_s == pytest.approx(0.2)
    assert level.tokens_per_s == pytest.approx(25)
    assert level.answers_per_s == pytest.approx(1)


def test_the_page_is_whole_and_asks_nobody() -> None:
    report = Report("http://<x>/", "today", 16, errors=["<b>"], turns=[Turn("m", 2.0)])
    report.first_asked = [Turn("m", 1.0)]
    for concurrency in (1, 4, 16):
        answers = [Answer(0.0, (0.1 * concurrency, 0.5 * concurrency), 0.5 * concurrency, 10)]
        report.levels.append(level_of("m & co", concurrency, answers))
    page = render_page(report)
    for figure in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        svg = ET.fromstring(figure)
        ys = [float(dot.attrib["cy"]) for dot in svg.iter("circle")]
        assert len(ys) % 3 == 0
        assert all(0 <= y <= 240 for y in ys)
    assert page.count("<svg") == 3
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"(src|href)=|url\(|<script|@import", page)
    assert "&lt;x&gt;" in page
    assert "<b>" not in page


def test_a_page_of_failures_only() -> None:
    level = level_of("m", 1, [Answer(0.0, error="x")])
    page = render_page(Report("u", "today", 1, levels=[level]))
    assert "<svg" not in page
    assert "nan" not in page
