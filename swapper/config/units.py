"""Sizes and durations as people write them: `20GiB`, `90%`, `1h30m`. A bare number has no unit."""

from __future__ import annotations

import re

_SIZE_UNITS: dict[str, int] = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_TIME_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

SIZE_PATTERN = r"^\d+(\.\d+)? ?([KMGTkmgt][Ii]?)?[Bb]$|^0$"
DURATION_PATTERN = r"^(\d+(\.\d+)?(d|h|ms|m|s))+$|^0$"
RATE_PATTERN = r"^[1-9]\d*/(s|m|h|d)$"
_RATE = re.compile(r"(\d+)/(s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)")
_TIME = re.compile(r"(\d+(?:\.\d+)?)(d|h|ms|m|s)")


def parse_size(value: object) -> int:
    """Bytes from `20GiB`, `512 MB` or 0; raises ValueError with what to write instead."""
    if value == 0 and not isinstance(value, bool):
        return 0
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a size needs a unit, such as {value}GiB")
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _SIZE_UNITS:
        raise ValueError(f"{value!r} is not a size; write it as 20GiB, 512MiB or 8GB")
    return round(float(match[1]) * _SIZE_UNITS[match[2].lower()])


def parse_duration(value: object) -> float:
    """Seconds from `10m`, `1h30m`, `250ms` or 0; raises ValueError with what to write instead."""
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a duration needs a unit, such as {value}s or {value}m")
    parts = _TIME.findall(value) if isinstance(value, str) else []
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(f"{value!r} is not a duration; write it as 30s, 10m or 1h30m")
    sizes = [_TIME_UNITS[unit] for _, unit in parts]
    if sizes != sorted(set(sizes), reverse=True):
        raise ValueError(f"{value!r} is not a duration; write each unit once, the largest first")
    return sum(float(number) * _TIME_UNITS[unit] for number, unit in parts)


def parse_rate(value: object) -> tuple[int, float]:
    """Requests and the seconds they are for, from `60/m`; raises ValueError with what to write."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{value!r} is not a rate; write it as 60/m, 5/s or 1000/d")
    return int(match[1]), _TIME_UNITS[match[2]]


def format_size(num_bytes: float) -> str:
    """A size for people: `1.4 GiB`, `608 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if num_bytes >= 10 else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def format_duration(seconds: float) -> str:
    """A duration as it may be written in the configuration: `1h30m`, `250ms`, `0`."""
    rest = round(seconds * 1000)
    text = ""
    for unit, size in _TIME_UNITS.items():
        count, rest = divmod(rest, round(size * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0"
