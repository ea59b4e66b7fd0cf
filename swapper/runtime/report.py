"""What a worker reports on its descriptor: one JSON object a line, see the worker contract."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from swapper.core.events import Failure
from swapper.runtime.placement import WorkerFacts


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of the model is loaded, 0 to 1."""

    fraction: float


Report: TypeAlias = Progress | WorkerFacts | Failure


def parse(line: str) -> Report | None:
    """The report in a line; None for what the contract does not know (a newer worker may say more)."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    match said.get("event"):
        case "loading":
            return _progress(said.get("progress"))
        case "ready":
            return _facts(said)
        case "failed":
            return _failure(said)
        case _:
            return None


def _progress(value: object) -> Progress | None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return Progress(min(1.0, max(0.0, float(value))))


def _facts(said: Mapping[str, object]) -> WorkerFacts:
    memory, context, capabilities = (said.get(k) for k in ("memory", "context", "capabilities"))
    return WorkerFacts(
        memory=_bytes(memory) if isinstance(memory, dict) else {},
        context=context if isinstance(context, int) and context > 0 else None,
        capabilities=tuple(str(c) for c in capabilities) if isinstance(capabilities, list) else (),
    )


def _bytes(memory: Mapping[object, object]) -> dict[str, int]:
    return {str(d): int(n) for d, n in memory.items() if isinstance(n, int | float) and n >= 0}


def _failure(said: Mapping[str, object]) -> Failure:
    kind, reason = said.get("kind"), said.get("reason")
    return Failure(
        kind if isinstance(kind, str) and kind else "crashed",
        " ".join(reason.split())
        if isinstance(reason, str) and reason
        else "the worker gave no reason",
    )
