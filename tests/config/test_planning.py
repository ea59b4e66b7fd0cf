from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swapper.config import Config, build_registry, plan_registry
from swapper.core.events import DeviceReading

Configure = Callable[..., Config]
GIB = 1 << 30


def machine(**gib: float) -> dict[str, DeviceReading]:
    """Devices of so many GiB; `cuda_0` is cuda:0."""
    return {
        name.replace("_", ":"): DeviceReading(int(size * GIB), int(size * GIB))
        for name, size in gib.items()
    }


def notes(config: Config, **gib: float) -> list[str]:
    planned = plan_registry(config, machine(**gib))
    return [str(note).rpartition("swapper.yaml")[2] for note in planned.notes]


@pytest.mark.parametrize(
    ("memory", "host", "gpu"),
    [
        ("{}", 90, 18),
        ("{host: auto, gpu: auto}", 90, 18),
        ("{host: 50%, gpu: 25%}", 50, 5),
        ("{host: 8GiB, gpu: 2GiB}", 8, 2),
        ("{host: 800GiB, gpu: 100%}", 100, 20),
        ('{gpu: {"cuda:0": 3GiB, "cuda:1": 0}}', 90, 3),
        ('{gpu: {"cuda:1": 50%}}', 90, 18),
        ("{gpu: 0}", 90, 0),
    ],
)
def test_budgets(configure: Configure, memory: str, host: int, gpu: int) -> None:
    config = configure(f"memory: {memory}\nmodels: {{m: {{engine: echo}}}}")
    budgets = build_registry(config, machine(host=100, cuda_0=20)).budgets
    assert budgets == {"host": host * GIB, "cuda:0": gpu * GIB}


def test_small_devices_keep_a_gib(configure: Configure) -> None:
    config = configure("models: {m: {engine: echo}}")
    assert build_registry(config, machine(host=4, cuda_0=0.5)).budgets == {
        "host": 3 * GIB,
        "cuda:0": 0,
    }


def test_a_gguf_is_estimated_from_its_header(
    configure: Configure, make_gguf: Callable[..., Path]
) -> None:
    make_gguf("m.gguf")
    config = configure("models: {m: {engine: llamacpp, path: m.gguf}}")
    (variant,) = build_registry(config, machine(host=16)).models["m"].variants
    assert variant.settings == {"gpu_layers": 0}
    assert 30 << 20 < variant.needs["host"] < 100 << 20
    on_gpu = build_registry(config, machine(host=16, cuda_0=8)).models["m"].variants
    assert on_gpu[0].settings == {"gpu_layers": 3, "devices": ["cuda:0"]}
    assert notes(config, host=16) == []


def test_less_context_where_memory_is_short_and_then_said_so(
    configure: Configure, make_gguf: Callable[..., Path]
) -> None:
    make_gguf("m.gguf", layers=64, context_length=1 << 20)
    config = configure("models: {m: {engine: llamacpp, path: m.gguf}}")
    (variant,) = build_registry(config, machine(host=8)).models["m"].variants
    assert variant.settings == {"gpu_layers": 0, "context": 524288}
    assert notes(config, host=8) == [
        ":1: models.m: context: 524288 of 1048576 tokens, as memory is short"
    ]
    assert notes(config, host=100) == []


def test_a_context_that_was_asked_for_is_kept(
    configure: Configure, make_gguf: Callable[..., Path]
) -> None:
    make_gguf("m.gguf", layers=64, context_length=1 << 20)
    config = configure("models: {m: {engine: llamacpp, path: m.gguf, context: 1048576}}")
    (variant,) = build_registry(config, machine(host=8)).models["m"].variants
    assert variant.settings == {"gpu_layers": 0}
    (note,) = notes(config, host=8)
    assert "needs 9.06 GiB of host, where 7 GiB may be used: it cannot be loaded" in note


def test_a_pool_smaller_than_the_trained_context_bounds_it(
    configure: Configure, make_gguf: Callable[..., Path]
) -> None:
    make_gguf("m.gguf")
    config = configure("models: {m: {engine: llamacpp, path: m.gguf, kv_tokens: 512}}")
    (variant,) = build_registry(config, machine(host=8)).models["m"].variants
    assert variant.settings == {"gpu_layers": 0, "context": 512}
    assert notes(config, host=8) == []


def test_memory_set_by_hand_replaces_the_estimate(
    configure: Configure, make_gguf: Callable[..., Path]
) -> None:
    make_gguf("m.gguf")
    config = configure("""
models:
  a: {engine: llamacpp, path: m.gguf, memory: {host: 1GiB}}
  b: {engine: llamacpp, path: m.gguf, memory: {host: 1GiB, "cuda:0": 2GiB}}
  c: {engine: llamacpp, path: m.gguf, memory: {"cuda:0": 2GiB}, gpu_layers: 1}
""")
    models = build_registry(config, machine(host=8, cuda_0=8)).models
    assert models["a"].variants[0].settings == {"gpu_layers": 0}
    assert models["b"].variants[0].settings == {"gpu_layers": -1, "devices": ["cuda:0"]}
    assert models["c"].variants[0].settings == {"gpu_layers": 1, "devices": ["cuda:0"]}
    assert models["b"].variants[0].needs == {"host": GIB, "cuda:0": 2 * GIB}


def test_memory_on_any_gpu_is_a_choice_among_all(configure: Configure) -> None:
    config = configure("""
models:
  a: {engine: command, cmd: sh, memory: {cuda: 2GiB, host: 1GiB}}
  b: {engine: command, cmd: sh, memory: {"cuda:1": 2GiB}}
  c: {engine: command, cmd: sh, memory: {host: 1GiB}}
""")
    models = build_registry(config, machine(host=8, cuda_0=8, cuda_1=8)).models
    assert [(v.needs, v.settings) for v in models["a"].variants] == [
        ({gpu: 2 * GIB, "host": GIB}, {"devices": [gpu]}) for gpu in ("cuda:0", "cuda:1")
    ]
    assert models["b"].variants[0].settings == {"devices": ["cuda:1"]}
    assert models["c"].variants[0].settings == {}
    assert "needs 2 GiB of cuda, where 0 B may be used: it cannot be loaded" in "".join(
        notes(config, host=8)
    )


def test_a_model_whose_file_is_missing_stays_configured(configure: Configure) -> None:
    config = configure("models: {m: {engine: llamacpp, path: nix.gguf}}")
    spec = build_registry(config, machine(host=8)).models["m"]
    assert spec.variants[0].needs == {}
    assert notes(config, host=8) == []


def test_gpus_that_are_not_there_are_told(
    configure: Configure, make_gguf: Callable[..., Path]
) -> None:
    make_gguf("m.gguf")
    config = configure("""
models:
  a: {engine: llamacpp, path: m.gguf, gpu_layers: 2}
  b: {engine: llamacpp, path: m.gguf, devices: ["cuda:3"]}
  c: {engine: command, cmd: sh, memory: {"cuda:0": 1GiB}}
""")
    assert notes(config, host=8) == [
        ":3: models.a: gpu_layers: there is no GPU; all layers run on the CPU",
        ":4: models.b: devices: cuda:3 is not there or has no budget",
        ":5: models.c: needs 1 GiB of cuda:0, where 0 B may be used: it cannot be loaded",
    ]


def test_embedding_models_compute_whole_texts(
    configure: Configure, make_gguf: Callable[..., Path]
) -> None:
    make_gguf("e.gguf", pooling_type=1)
    make_gguf("g.gguf")
    config = configure(
        "models: {e: {engine: llamacpp, path: e.gguf}, g: {engine: llamacpp, path: g.gguf}}"
    )
    models = build_registry(config, machine(host=8)).models
    assert models["e"].variants[0].needs["host"] > models["g"].variants[0].needs["host"]
