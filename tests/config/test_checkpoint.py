"""Safetensors folders: what their headers say, what is refused, how they are laid out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swapper.checkpoint import INDEX, read_checkpoint
from swapper.config import Config, build_registry, plan_registry
from swapper.core.checkpoint_footprint import (
    CheckpointPlan,
    StoredTensor,
    kv_bytes,
    read_checkpoint_shape,
)
from swapper.core.events import DeviceReading
from swapper.errors import ConfigError
from swapper.torch_build import is_torch_for_gpus

Make = Callable[..., Path]
GIB = 1 << 30


def machine(**gib: float) -> dict[str, DeviceReading]:
    return {
        name.replace("_", ":"): DeviceReading(int(size * GIB), int(size * GIB))
        for name, size in gib.items()
    }


def test_the_header_tells_the_tensors(make_checkpoint: Make) -> None:
    header = read_checkpoint(make_checkpoint())
    assert header.config["model_type"] == "llama"
    assert [(tensor.elements, tensor.num_bytes) for tensor in header.tensors] == [
        (300 * 64, 300 * 64 * 2),
        (64 * 64, 64 * 64 * 2),
        (64 * 64, 64 * 64 * 2),
    ]


def test_several_files_by_an_index(make_checkpoint: Make) -> None:
    folder = make_checkpoint()
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ConfigError, match=r"lacks 1 of 2 files: model-00002-of-00002"):
        read_checkpoint(folder)
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    assert len(read_checkpoint(folder).tensors) == 3


@pytest.mark.parametrize("kept", [0, 4, 50, 5000])
def test_what_is_cut_off_is_refused(make_checkpoint: Make, kept: int) -> None:
    file = make_checkpoint() / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ConfigError, match=r"model.safetensors is (cut off|not a safetensors)"):
        read_checkpoint(file.parent)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"a": {}}', '{"a": {"dtype": "F32"}}', '{"a": 1}',
        '{"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 1]}}',
        '{"a": {"dtype": "F32", "shape": [[1]], "data_offsets": [0, 1]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}',
    ],
)  # fmt: skip
def test_what_is_no_header_is_refused(make_checkpoint: Make, text: str) -> None:
    file = make_checkpoint() / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text.encode())
    with pytest.raises(ConfigError, match=r"model\.safetensors is"):
        read_checkpoint(file.parent)


def test_a_missing_configuration_is_told(make_checkpoint: Make) -> None:
    folder = make_checkpoint()
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"model has no config\.json"):
        read_checkpoint(folder)


def test_pickled_weights_are_told(make_checkpoint: Make) -> None:
    folder = make_checkpoint()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="model holds no safetensors"):
        read_checkpoint(folder)
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ConfigError, match="model holds pickled weights only"):
        read_checkpoint(folder)


def test_sizes_of_an_8b_llama() -> None:
    config = {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "dtype": "bfloat16",
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 131072,
    }  # fmt: skip
    shape = read_checkpoint_shape(config, [])
    plan = CheckpointPlan(8192)
    assert kv_bytes(shape, plan, on_gpu=True) == 8192 * 131072
    assert kv_bytes(shape, plan, on_gpu=False) == 2 * 8192 * 131072


def test_nested_configurations_and_mxfp4() -> None:
    tensors = [
        StoredTensor("experts.gate_up_proj_blocks", "U8", 160, 160),
        StoredTensor("experts.gate_up_proj_scales", "U8", 10, 10),
        StoredTensor("norm.weight", "BF16", 5, 10),
    ]
    shape = read_checkpoint_shape({"text_config": {"num_hidden_layers": 1}}, tensors)
    assert shape.weights == 325
    assert shape.dtype == "bfloat16"


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1, True, "2", [2], {}, 10**400])
@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "rope_scaling", "text_config"])
def test_what_is_no_size_counts_as_nothing(key: str, odd: object) -> None:
    config = {"hidden_size": 64, "max_position_embeddings": 128, "num_attention_heads": 4}
    assert read_checkpoint_shape({**config, key: odd}, []).trained_context == 128


def test_what_is_never_loaded_takes_no_memory() -> None:
    names = ["lm_head.weight", "vision_tower.a", "model.multi_modal_projector.b", "model.norm"]
    tensors = [StoredTensor(name, "BF16", 10, 20) for name in names]
    assert read_checkpoint_shape({"tie_word_embeddings": True}, tensors).weights == 10
    assert read_checkpoint_shape({}, tensors).weights == 20


@pytest.mark.parametrize("rope", ["rope_scaling", "rope_parameters"])
def test_yarn_stretches_the_context(rope: str) -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config = {"max_position_embeddings": 40960, rope: yarn}
    assert read_checkpoint_shape(config, []).trained_context == 131072
    assert (
        read_checkpoint_shape({**config, rope: {**yarn, "type": "linear"}}, []).trained_context
        == 40960
    )


def test_layouts(configure: Callable[..., Config], make_checkpoint: Make) -> None:
    make_checkpoint("m")
    config = configure("models: {m: {engine: paged, path: m, kv_tokens: 4096, context: 1000}}")
    (on_cpu,) = build_registry(config, machine(host=16)).models["m"].variants
    assert on_cpu.settings == {"devices": [], "kv_bytes": 4096 * 2 * 2 * 32 * 4, "context": 1000}
    assert 200 << 20 < on_cpu.needs["host"] < 700 << 20
    on_gpu, last = build_registry(config, machine(host=16, cuda_0=8)).models["m"].variants
    assert on_gpu.settings["devices"] == ["cuda:0"]
    assert on_gpu.settings["kv_bytes"] == 4096 * 2 * 2 * 32 * 2
    assert last.settings == on_cpu.settings
    assert on_gpu.quality > last.quality


@pytest.mark.parametrize(
    ("library", "is_for_gpus"),
    [("libtorch_cuda.so", True), ("libtorch_hip.so", True), ("libtorch_cpu.so", False)],
)
def test_a_torch_built_for_gpus_is_told_by_its_libraries(
    library: str, is_for_gpus: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch/lib").mkdir(parents=True)
    (tmp_path / "torch/__init__.py").touch()
    (tmp_path / "torch/lib" / library).touch()
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert is_torch_for_gpus() == is_for_gpus


def test_less_context_where_memory_is_short(
    configure: Callable[..., Config], make_checkpoint: Make
) -> None:
    make_checkpoint("m", max_position_embeddings=1 << 22)
    config = configure("models: {m: {engine: paged, path: m}}")
    planned = plan_registry(config, machine(host=3.5))
    assert planned.registry.models["m"].variants[0].settings["context"] == 1 << 21
    assert "of 4194304 tokens, as memory is short" in str(planned.notes[0])


def test_a_broken_checkpoint_is_the_models_problem(
    configure: Callable[..., Config], make_checkpoint: Make
) -> None:
    (make_checkpoint("m") / "model.safetensors").write_bytes(b"")
    config = configure("models: {m: {engine: paged, path: m}, e: {engine: echo}}")
    assert "not a safetensors file" in str(config.problem_of("m"))


def test_a_pool_below_the_context(configure: Callable[..., Config], make_checkpoint: Make) -> None:
    make_checkpoint("m")
    with pytest.raises(ConfigError, match="less than context"):
        configure("models: {m: {engine: paged, path: m, kv_tokens: 100, context: 1000}}")
