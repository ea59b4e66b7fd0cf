"""The kinds of value a configuration holds, each with its check and its JSON schema.

A check raises ValueError with a sentence that says what to write instead.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import (
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

from swapper.config.listen import Listen, parse_listen
from swapper.config.units import (
    DURATION_PATTERN,
    RATE_PATTERN,
    SIZE_PATTERN,
    parse_duration,
    parse_rate,
    parse_size,
)

ANY_GPU = "cuda"  # whichever one has room best


class Rate(NamedTuple):
    """So many requests in so many seconds."""

    requests: int
    seconds: float


_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


def _size_or_share(value: object) -> int | float | Literal["auto"]:
    """Bytes as an int, a share of the device as a float up to 1."""
    if value == "auto":
        return "auto"
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return parse_size(value)
    if float(match[1]) > 100:
        raise ValueError(f"{value} is more than there is")
    return float(match[1]) / 100


def _gpu_budget(value: object) -> object:
    if not isinstance(value, dict):
        return _size_or_share(value)
    for device in value:
        _device(device)
    return {device: _size_or_share(size) for device, size in value.items()}


def _rate(value: object) -> Rate:
    return Rate(*parse_rate(value))


def _duration_or_auto(value: object) -> float | Literal["auto"]:
    return "auto" if value == "auto" else parse_duration(value)


def _count_or_auto(value: object, least: int) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"must be auto or a whole number from {least} up, not {value!r}")
    return value


def _count_from_0(value: object) -> int | Literal["auto"]:
    return _count_or_auto(value, 0)


def _count_from_1(value: object) -> int | Literal["auto"]:
    return _count_or_auto(value, 1)


def _flag_or_auto(value: object) -> bool | Literal["auto"]:
    if value == "auto":
        return "auto"
    if not isinstance(value, bool):
        raise ValueError(f"must be auto, true or false, not {value!r}")
    return value


def _device(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"cuda:\d+", value):
        raise ValueError(f"{value!r} is not a GPU; GPUs are named cuda:0, cuda:1, ...")
    return value


def _memory(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or not value:
        raise ValueError('must name devices and sizes, such as {"cuda:0": 20GiB, host: 2GiB}')
    for device in value:
        if device not in ("host", ANY_GPU):
            _device(device)
    return {device: parse_size(size) for device, size in value.items()}


def _listen(value: object) -> list[Listen]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError("must name at least one address, such as 127.0.0.1:8080")
    return [parse_listen(item) for item in values]


_TEXT: dict[str, object] = {"type": "string"}
_AUTO: dict[str, object] = {"const": "auto"}
_SIZE = {"anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"const": 0}]}
_SHARE = {"anyOf": [*_SIZE["anyOf"], _AUTO, {"type": "string", "pattern": r"^\d+(\.\d+)?%$"}]}
_TIME = {"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"const": 0}]}


def _either(*schemas: dict[str, object]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(schemas)})


def _count(least: int) -> WithJsonSchema:
    return _either(_AUTO, {"type": "integer", "minimum": least})


def _map_of(schema: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "additionalProperties": schema}


def _list_of(schema: dict[str, object]) -> dict[str, object]:
    return {"type": "array", "items": schema}


Text: TypeAlias = Annotated[str, StringConstraints(min_length=1)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Size: TypeAlias = Annotated[int, PlainValidator(parse_size), WithJsonSchema(_SIZE)]
Duration: TypeAlias = Annotated[float, PlainValidator(parse_duration), WithJsonSchema(_TIME)]
RateLimit: TypeAlias = Annotated[
    Rate, PlainValidator(_rate), WithJsonSchema({"type": "string", "pattern": RATE_PATTERN})
]
MaxWait: TypeAlias = Annotated[
    float | Literal["auto"], PlainValidator(_duration_or_auto), _either(_AUTO, _TIME)
]
Budget: TypeAlias = Annotated[
    int | float | Literal["auto"], PlainValidator(_size_or_share), WithJsonSchema(_SHARE)
]
GpuBudget: TypeAlias = Annotated[
    int | float | Literal["auto"] | dict[str, int | float | Literal["auto"]],
    PlainValidator(_gpu_budget),
    _either(_SHARE, _map_of(_SHARE)),
]
From0: TypeAlias = Annotated[int | Literal["auto"], PlainValidator(_count_from_0), _count(0)]
From1: TypeAlias = Annotated[int | Literal["auto"], PlainValidator(_count_from_1), _count(1)]
FlagOrAuto: TypeAlias = Annotated[
    bool | Literal["auto"], PlainValidator(_flag_or_auto), _either(_AUTO, {"type": "boolean"})
]
Device: TypeAlias = Annotated[str, PlainValidator(_device), WithJsonSchema(_TEXT)]
Memory: TypeAlias = Annotated[
    dict[str, int], PlainValidator(_memory), WithJsonSchema(_map_of(_SIZE))
]
ListenList: TypeAlias = Annotated[
    list[Listen], PlainValidator(_listen), _either(_TEXT, _list_of(_TEXT))
]
Words: TypeAlias = Annotated[list[str], Field(min_length=1), _either(_TEXT, _list_of(_TEXT))]
CacheType: TypeAlias = Literal[
    "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"
]
