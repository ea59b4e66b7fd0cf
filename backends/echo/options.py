"""The options of the echo worker, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from backends.serving.engine import EngineError


@dataclass(frozen=True, slots=True)
class Options:
    """See the table in `backends.echo`."""

    model: str = "echo"
    context: int = 4096
    parallel: int = 64
    load_s: float = 0.0
    hang_load: bool = False
    fail_load: str = ""
    memory_bytes: int = 0
    first_token_s: float = 0.0
    tokens_per_s: float = 0.0
    exit_after_tokens: int = 0
    break_after_tokens: int = 0
    can_sleep: bool = False
    wake_s: float = 0.0
    fail_sleep: bool = False
    fail_wake: bool = False
    stop_s: float = 0.0
    ignore_term: bool = False
    embedding_length: int = 16

    def __post_init__(self) -> None:
        for name in ("context", "parallel", "embedding_length"):
            if getattr(self, name) < 1:
                raise EngineError("bad_options", f"{name} must be at least 1.")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value < 0:
                raise EngineError("bad_options", f"{field.name} must not be negative.")


def read(given: dict[str, Any]) -> Options:
    """Options from JSON. Keys of other engines are ignored, null is the same as absent."""
    chosen = {}
    for field in fields(Options):
        value = given.get(field.name)
        if value is None:
            continue
        if not _fits(value, type(field.default)):
            raise EngineError(
                "bad_options", f"{field.name} must be of type {type(field.default).__name__}."
            )
        chosen[field.name] = value
    return Options(**chosen)


def _fits(value: object, wanted: type) -> bool:
    if isinstance(value, bool) or wanted is bool:
        return type(value) is wanted
    return isinstance(value, int | float if wanted is float else wanted)
