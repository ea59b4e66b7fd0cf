"""The options file as the contract has it; what it cannot mean is said with the key."""

from __future__ import annotations

from typing import Any

import pytest

from backends.paged.options import Options, parse
from backends.serving.engine import EngineError
from backends.serving.option_values import cores


def test_only_the_path_has_to_be_said() -> None:
    assert parse({"path": "/models/one/"}) == Options(
        "/models/one/", model="one", threads=cores(), parallel=8, dtype="auto"
    )


def test_all_that_can_be_said() -> None:
    said: dict[str, Any] = {
        "path": "p", "model": "m", "context": 1, "parallel": 1024, "kv_tokens": 1, "kv_bytes": 1,
        "batch": 1, "threads": 512, "devices": ["cuda:0"], "dtype": "bfloat16", "pooling": "cls",
    }  # fmt: skip
    assert parse(said) == Options(**said | {"devices": ("cuda:0",)})
    assert parse(said | {"parallel": 1, "threads": 1}).parallel == 1
    assert parse(said | {"threads": "auto"}).threads == cores()
    assert parse(said | {"dtype": "f16"}).dtype == "float16"
    assert parse(said | {"gpu_layers": 0}).devices == ()
    assert parse(said | {"gpu_layers": 99}).devices == ("cuda:0",)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", ""),
        ("context", 0),
        ("parallel", 0),
        ("parallel", 1025),
        ("parallel", True),
        ("kv_tokens", 0),
        ("kv_bytes", 0),
        ("batch", 0),
        ("batch", 1.5),
        ("threads", 513),
        ("threads", 0),
        ("devices", "cuda:0"),
        ("dtype", "int3"),
        ("pooling", "max"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(EngineError, match=f"^{key}: ") as caught:
        parse({"path": "p", key: value})
    assert caught.value.kind == "bad_options"
