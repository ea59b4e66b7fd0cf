from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapper.config.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GiB", 20 << 30),
        ("512 MiB", 512 << 20),
        ("8GB", 8 * 10**9),
        ("1.5kib", 1536),
        (0, 0),
        ("7B", 7),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value", [20, 1.5, True, "20", "20G", "GiB", "-1GiB", "1e3MiB", "90%", None, [], ""]
)
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        ("250ms", 0.25),
        (0, 0),
        ("0", 0),
        ("1.5s", 1.5),
        ("1d", 86400),
        ("2s", 2),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        10,
        1.5,
        True,
        False,
        "10",
        "10 m",
        "m",
        "-1s",
        "30m1h",
        "1m1m",
        "1:30",
        "10min",
        None,
        [],
        "",
    ],
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


def test_a_bare_number_is_told_its_unit() -> None:
    with pytest.raises(ValueError, match="such as 20GiB"):
        parse_size(20)
    with pytest.raises(ValueError, match="such as 10s or 10m"):
        parse_duration(10)


@given(st.integers(0, 10**10))
def test_durations_survive_being_written(milliseconds: int) -> None:
    text = format_duration(milliseconds / 1000)
    assert parse_duration(text) == pytest.approx(milliseconds / 1000)
    assert re.match(DURATION_PATTERN, text)


@given(
    st.integers(0, 10**6),
    st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB", "KB", "MB", "GB", "TB"]),
)
def test_whole_sizes_are_exact(number: int, unit: str) -> None:
    base = 1024 if "i" in unit else 1000
    assert parse_size(f"{number}{unit}") == number * base ** "BKMGT".index(unit[0])
    assert re.match(SIZE_PATTERN, f"{number}{unit}")


@given(st.integers(1, 2**50))
def test_a_size_shown_is_about_the_size(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.06)


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_anything_else_is_a_value_error(value: object) -> None:
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(ValueError):
            assert parse(value) >= 0
