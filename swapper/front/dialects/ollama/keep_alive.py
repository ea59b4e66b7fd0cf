"""`keep_alive`: how long a model stays when nobody asks it."""

from __future__ import annotations

import math
import re
from typing import Final

from swapper.errors import BadRequest

_UNITS: Final = {
    "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9,
}  # fmt: skip
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|μs|ns)", re.ASCII)
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
LONGEST_S: Final = 20 * 365 * 86400.0  # clocks and calendars end somewhere
_LONGEST: Final = 64  # characters


def seconds(given: float | str | None) -> float | None:
    """How long to stay idle: numbers are seconds, texts durations such as `5m`, `1h30m` or `-1s`;
    what is negative, or more than a lifetime of any machine, is infinity. None: nothing was said. Raises BadRequest."""
    if given is None or given == "":
        return None
    value = _duration(given) if isinstance(given, str) else float(given)
    return math.inf if value < 0 or value > LONGEST_S else value


def _duration(text: str) -> float:
    digits = text[1:] if text[0] in "+-" else text
    sign = -1.0 if text[0] == "-" else 1.0
    if len(text) <= _LONGEST:
        if _NUMBER.fullmatch(digits):  # seconds, as a number would be
            return sign * float(digits)
        parts = _PART.findall(digits)
        if parts and "".join(number + unit for number, unit in parts) == digits:
            return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)
    raise BadRequest(
        f"keep_alive: {text[:_LONGEST]!r} is no duration such as '5m', '1h30m', '0' or '-1s'",
        param="keep_alive",
    )
