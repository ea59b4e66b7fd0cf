from __future__ import annotations

import pytest

from backends.llamacpp.options import parse
from backends.serving.engine import EngineError


def test_defaults() -> None:
    options = parse({"path": "/m/a.gguf", "no_such_key": 1})
    assert (options.model, options.parallel, options.context) == ("a.gguf", 8, None)
    assert options.threads >= 1
    assert options.gpu_layers == -1


def test_all_keys() -> None:
    options = parse(
        {
            "path": "/m/a.gguf",
            "model": "a",
            "context": 4096,
            "parallel": 4,
            "kv_tokens": 8192,
            "threads": "auto",
            "gpu_layers": "auto",
            "devices": ["cuda:0"],
            "tensor_split": [1, 0.5],
            "main_gpu": 1,
            "flash_attention": True,
            "cache_type_k": "q8_0",
            "cache_type_v": "q4_0",
            "batch": 256,
            "ubatch": 128,
            "mmap": False,
            "mlock": True,
            "repack": "off",
            "pooling": "last",
            "rope_scaling": "yarn",
            "rope_freq_base": 10000,
            "rope_freq_scale": 0.5,
            "lora": ["a.gguf", {"path": "b.gguf", "scale": 0.5}],
        }
    )
    assert options.flash_attention == 1
    assert (options.cache_type_k, options.cache_type_v) == (8, 2)
    assert options.lora == (("a.gguf", 1.0), ("b.gguf", 0.5))
    assert options.pooling == 3
    assert options.repack == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("context", 0),
        ("context", "8k"),
        ("parallel", 257),
        ("parallel", True),
        ("threads", -1),
        ("cache_type_k", "q9"),
        ("cache_type_v", 8),
        ("flash_attention", "maybe"),
        ("mmap", "yes"),
        ("devices", "cuda:0"),
        ("tensor_split", ["a"]),
        ("pooling", "max"),
        ("lora", [{"scale": 1}]),
        ("rope_scaling", "ntk"),
        ("rope_freq_base", "x"),
    ],
)
def test_an_unknown_value_names_its_key(key, value) -> None:
    with pytest.raises(EngineError) as caught:
        parse({"path": "a.gguf", key: value})
    assert caught.value.kind == "bad_options"
    assert caught.value.reason.startswith(f"{key}: {value!r} is not ")


def test_no_path() -> None:
    with pytest.raises(EngineError, match="path"):
        parse({})
