"""Checkpoint folders as they are published, and as they should not be."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the paged engine needs torch")
pytest.importorskip("transformers", reason="transformers is what models are compared with")

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from backends.paged.architectures import ARCHITECTURES
from backends.paged.decoder import ALIGNMENT
from backends.paged.loader import load
from backends.serving.engine import EngineError
from tests.paged.models import oracle
from tests.paged.models.agreement import agree
from tests.paged.models.paging import Paged

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"


@pytest.fixture
def llama(tmp_path: Path) -> transformers.PreTrainedModel:
    return oracle.save(tmp_path, "llama")


def edit(path: Path, **values: Any) -> None:
    config = json.loads(path.read_text())
    config.update(values)
    path.write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header.pop("__metadata__", None)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def refused(folder: Path, kind: str, *reasons: str) -> None:
    """It is refused, for these reasons, and before anything is allocated."""
    allocated: list[int] = []
    with pytest.raises(EngineError) as caught:
        load(str(folder), "auto", "cpu", allocate=allocated.append)  # type: ignore[arg-type]
    assert caught.value.kind == kind
    for reason in reasons:
        assert reason in caught.value.reason
    assert "\n" not in caught.value.reason
    assert str(folder) not in caught.value.reason
    assert not allocated


def test_sharded(tmp_path: Path, llama: transformers.PreTrainedModel) -> None:
    os.remove(tmp_path / WEIGHTS)
    llama.save_pretrained(tmp_path, max_shard_size="60KB")
    assert (tmp_path / INDEX).exists()
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    agree(llama, load(str(tmp_path), "auto", "cpu")[1])


def test_of_a_tensor_in_two_shards_the_one_that_the_index_names_counts(
    tmp_path: Path, llama: transformers.PreTrainedModel
) -> None:
    os.remove(tmp_path / WEIGHTS)
    llama.save_pretrained(tmp_path, max_shard_size="60KB")
    shards = {path: load_file(path) for path in tmp_path.glob("*.safetensors")}
    names = {name for weights in shards.values() for name in weights}
    for path, weights in shards.items():
        save_file({name: weights.get(name, torch.zeros(1)) for name in names}, path)
    agree(llama, load(str(tmp_path), "auto", "cpu")[1])


def test_nested_and_prefixed_beside_a_vision_tower(tmp_path: Path) -> None:
    text = oracle.TINY | {"head_dim": 16, "sliding_window": 12, "num_hidden_layers": 6}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.Gemma3Config(text_config=text, vision_config=vision)
    model = transformers.Gemma3ForConditionalGeneration._from_config(
        config, attn_implementation="eager"
    ).eval()
    oracle.randomize(model)
    model.save_pretrained(tmp_path)
    assert any(name.startswith("vision_tower.") for name in load_file(tmp_path / WEIGHTS))
    agree(model, load(str(tmp_path), "auto", "cpu")[1])


def test_tied_with_a_head_saved_beside(tmp_path: Path) -> None:
    model = oracle.save(tmp_path, "llama", tie_word_embeddings=True)
    embedding = "model.embed_tokens.weight"
    edit_weights(tmp_path, lambda w: w.update({"lm_head.weight": w[embedding].clone()}))
    agree(model, load(str(tmp_path), "auto", "cpu")[1])


def test_tied_by_its_word_with_another_head_beside(tmp_path: Path) -> None:
    """As transformers: the weights are believed."""
    model = oracle.save(tmp_path, "llama", tie_word_embeddings=False)
    edit(tmp_path / CONFIG, tie_word_embeddings=True)
    agree(model, load(str(tmp_path), "auto", "cpu")[1])


def test_code_in_the_folder_is_not_looked_at(tmp_path: Path) -> None:
    model = oracle.save(tmp_path, "llama")
    (tmp_path / "modeling.py").write_text("raise SystemExit('run')")
    edit(tmp_path / CONFIG, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    agree(model, load(str(tmp_path), "auto", "cpu")[1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_widened_on_a_cpu(
    dtype: str, tmp_path: Path, llama: transformers.PreTrainedModel
) -> None:
    llama.to(getattr(torch, dtype)).save_pretrained(tmp_path)
    _, decoder = load(str(tmp_path), "auto", "cpu")
    assert decoder.dtype == torch.float32
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    agree(theirs, decoder)


def test_computes_in_the_precision_asked_for(
    tmp_path: Path, llama: transformers.PreTrainedModel
) -> None:
    tokens = list(range(3, 40))
    _, decoder = load(str(tmp_path), "bfloat16", "cpu")
    logits = Paged(decoder, 1, 64).step([(0, tokens)])[0]
    assert logits.dtype == torch.float32
    wanted = oracle.logits(llama, tokens)
    theirs = oracle.logits(llama.to(torch.bfloat16), tokens)
    assert 0 < (logits - wanted).norm() < 1.3 * (theirs - wanted).norm()
    with pytest.raises(EngineError, match="int8 is none of auto, float32"):
        load(str(tmp_path), "int8", "cpu")


def test_progress_rises_to_the_end(tmp_path: Path, llama: transformers.PreTrainedModel) -> None:
    shares: list[float] = []
    load(str(tmp_path), "auto", "cpu", shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 10
    assert shares[-1] == 1.0


def test_all_of_a_model_is_one_buffer_that_can_be_moved(
    tmp_path: Path, llama: transformers.PreTrainedModel
) -> None:
    buffers: list[Tensor] = []

    def allocate(size: int) -> Tensor:
        buffers.append(torch.full((size,), 0xFF, dtype=torch.uint8))
        return buffers[-1]

    _, decoder = load(str(tmp_path), "auto", "cpu", allocate=allocate)
    image = buffers[0]
    start, end = image.data_ptr(), image.data_ptr() + image.numel()
    places = [tensor.data_ptr() - start for _, tensor in decoder.tensors()]
    assert places == sorted(places)
    assert all(place % ALIGNMENT == 0 and place < end - start for place in places)
    decoder.place(image.clone())
    image.fill_(0xFF)
    agree(llama, decoder)


def test_unknown_architectures_are_refused_by_name_first(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"architectures": ["MambaForCausalLM"]}))
    refused(tmp_path, "unsupported", "MambaForCausalLM", *ARCHITECTURES)
    (tmp_path / CONFIG).write_text("{}")
    refused(tmp_path, "unsupported", "names no architecture")
    (tmp_path / CONFIG).write_text(json.dumps({"architectures": [["LlamaForCausalLM"]]}))
    refused(tmp_path, "unsupported", "is not supported")


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", "missing_file", "none does not exist")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "bad_file", "file is not a folder")
    refused(tmp_path, "missing_file", "config.json")


@pytest.mark.usefixtures("llama")
class TestBadConfig:
    @pytest.mark.parametrize("text", ["{", "", '{"a": ', "[1, 2]", "\x00\x01", "[" * 100000])
    def test_no_json(self, text: str, tmp_path: Path) -> None:
        (tmp_path / CONFIG).write_text(text)
        refused(tmp_path, "bad_file", CONFIG)

    @pytest.mark.parametrize(
        ("key", "value", "reason"),
        [
            ("hidden_size", None, "lacks hidden_size"),
            ("hidden_size", "48", "hidden_size is '48', not a positive integer"),
            ("hidden_size", -48, "hidden_size is -48"),
            ("hidden_size", True, "hidden_size is True"),
            ("num_hidden_layers", 0, "num_hidden_layers is 0"),
            ("num_hidden_layers", 10**6, "num_hidden_layers is 1000000"),
            ("vocab_size", 10**9, "vocab_size is 1000000000, not at most"),
            ("head_dim", 1 << 23, "num_attention_heads is 6, not at most 2"),
            ("rms_norm_eps", 10**400, "rms_norm_eps is 1000"),
            ("rms_norm_eps", 0, "rms_norm_eps is 0, not a number above nought"),
            ("partial_rotary_factor", 2, "config.json: partial_rotary_factor is 2, not at most 1"),
            ("num_key_value_heads", 4, "a divisor of num_attention_heads, 6"),
            ("rms_norm_eps", [], "rms_norm_eps is []"),
            ("rms_norm_eps", float("nan"), "rms_norm_eps is nan"),
            ("attention_bias", "no", "attention_bias is 'no'"),
            ("architectures", "llama", "architectures is 'llama', not a list"),
            ("rope_parameters", 3, "rope_parameters is 3, not an object"),
        ],
    )
    def test_odd_values(self, key: str, value: Any, reason: str, tmp_path: Path) -> None:
        edit(tmp_path / CONFIG, **{key: value})
        refused(tmp_path, "bad_file", reason)

    @pytest.mark.parametrize(
        ("key", "value", "reason"),
        [
            ("quantization_config", {"quant_method": "awq", "bits": 4}, "quantised by awq"),
            ("quantization_config", {"quant_method": "mxfp4"}, "quantised by mxfp4"),
            ("quantization_config", {"bits": 4}, "quantised by a method without"),
            ("hidden_act", "xielu", "hidden_act 'xielu' is not supported"),
            ("quantization", {"group_size": 64, "bits": 4}, "quantised by a method without"),
            ("compression_config", {"quant_method": "sparseml"}, "quantised by sparseml"),
            ("is_encoder_decoder", True, "is_encoder_decoder"),
            ("is_causal", False, "attention both ways"),
            ("use_bidirectional_attention", True, "use_bidirectional_attention"),
        ],
    )
    def test_features_unknown(self, key: str, value: Any, reason: str, tmp_path: Path) -> None:
        edit(tmp_path / CONFIG, **{key: value})
        refused(tmp_path, "unsupported", reason)

    def test_kinds_of_layers_unknown(self, tmp_path: Path) -> None:
        oracle.save(tmp_path, "gemma2", head_dim=16)
        edit(tmp_path / CONFIG, layer_types=["full_attention"] * 3 + ["linear_attention"])
        refused(tmp_path, "unsupported", "layer_types 'linear_attention'")
        edit(tmp_path / CONFIG, layer_types=["full_attention"] * 3)
        refused(tmp_path, "bad_file", "as long as num_hidden_layers, 4")


@pytest.mark.usefixtures("llama")
class TestBadWeights:
    def test_none(self, tmp_path: Path) -> None:
        os.remove(tmp_path / WEIGHTS)
        refused(tmp_path, "missing_file", "has no model.safetensors")
        (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
        refused(tmp_path, "unsupported", "pickled", "safetensors")

    @pytest.mark.parametrize("share", [0.5, 0.99, 0.001])
    def test_cut_short(self, share: float, tmp_path: Path) -> None:
        size = os.path.getsize(tmp_path / WEIGHTS)
        os.truncate(tmp_path / WEIGHTS, int(size * share))
        refused(tmp_path, "bad_file", "model.safetensors is truncated", f"{int(size * share)}")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\0" * 7,
            b"\xff" * 64,
            struct.pack("<Q", 2) + b"[]",
            struct.pack("<Q", 10) + b"not json !",
            struct.pack("<Q", 21) + b'{"a": {"dtype": "X"}}',
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        ],
    )
    def test_no_safetensors(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / WEIGHTS).write_bytes(content)
        refused(tmp_path, "bad_file", WEIGHTS)

    @pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
    def test_a_pipe_is_not_waited_for(self, name: str, tmp_path: Path) -> None:
        os.remove(tmp_path / name)
        os.mkfifo(tmp_path / name)
        refused(tmp_path, "bad_file", f"{name} is not a regular file")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("data_offsets", [0, 1 << 62]),
            ("data_offsets", [64, 0]),
            ("data_offsets", [-64, 0]),
            ("data_offsets", []),
            ("shape", [1 << 40, 1 << 40]),
            ("shape", [-1]),
            ("shape", "x"),
            ("dtype", "X9"),
            ("dtype", None),
        ],
    )
    def test_a_header_that_cannot_be(self, field: str, value: Any, tmp_path: Path) -> None:
        edit_header(
            tmp_path / WEIGHTS, lambda header: next(iter(header.values())).update({field: value})
        )
        refused(tmp_path, "bad_file", WEIGHTS)

    def test_tensors_that_overlap(self, tmp_path: Path) -> None:
        def overlap(header: dict[str, Any]) -> None:
            first, second = list(header)[:2]
            header[second] = header[first]

        edit_header(tmp_path / WEIGHTS, overlap)
        refused(tmp_path, "bad_file", WEIGHTS)

    def test_a_tensor_missing(self, tmp_path: Path) -> None:
        name = "model.layers.1.self_attn.k_proj.weight"
        edit_weights(tmp_path, lambda weights: weights.pop(name))
        refused(tmp_path, "bad_file", "lacks", name)

    def test_the_embedding_missing(self, tmp_path: Path) -> None:
        edit_weights(tmp_path, lambda weights: weights.pop("model.embed_tokens.weight"))
        refused(tmp_path, "bad_file", "no embed_tokens.weight")

    def test_a_shape_that_config_denies(self, tmp_path: Path) -> None:
        edit(tmp_path / CONFIG, intermediate_size=80)
        refused(tmp_path, "bad_file", "mlp.gate_proj.weight", "[64, 48]", "[80, 48]")

    def test_fewer_layers_than_there_are(self, tmp_path: Path) -> None:
        edit(tmp_path / CONFIG, num_hidden_layers=3)
        refused(tmp_path, "unsupported", "model.layers.3.", "6 more")

    def test_weights_of_unknown_meaning(self, tmp_path: Path) -> None:
        name = "model.layers.0.self_attn.q_proj.bias"
        edit_weights(tmp_path, lambda weights: weights.update({name: torch.zeros(48)}))
        refused(tmp_path, "unsupported", name, "LlamaForCausalLM")

    @pytest.mark.parametrize("suffix", ["qweight", "scales", "weight_packed", "weight_scale_inv"])
    def test_quantised_without_a_word(self, suffix: str, tmp_path: Path) -> None:
        name = f"model.layers.0.mlp.down_proj.{suffix}"
        old = "model.layers.0.mlp.down_proj.weight"
        edit_weights(tmp_path, lambda weights: weights.update({name: weights.pop(old)}))
        refused(tmp_path, "unsupported", "weights are quantised", name)

    def test_numbers_that_are_codes(self, tmp_path: Path) -> None:
        name = "model.layers.0.mlp.down_proj.weight"
        edit_weights(tmp_path, lambda w: w.update({name: w[name].to(torch.int8)}))
        refused(tmp_path, "bad_file", name, "I8")


class TestBadShards:
    @pytest.fixture(autouse=True)
    def _sharded(self, tmp_path: Path, llama: transformers.PreTrainedModel) -> None:
        os.remove(tmp_path / WEIGHTS)
        llama.save_pretrained(tmp_path, max_shard_size="60KB")

    def test_one_missing(self, tmp_path: Path) -> None:
        shards = sorted(tmp_path.glob("*.safetensors"))
        os.remove(shards[1])
        refused(tmp_path, "bad_file", shards[1].name, f"1 of {len(shards)} shards")

    def test_one_cut_short(self, tmp_path: Path) -> None:
        shard = max(tmp_path.glob("*.safetensors"))
        os.truncate(shard, os.path.getsize(shard) - 1)
        refused(tmp_path, "bad_file", f"{shard.name} is truncated")

    def test_one_without_what_the_index_says(self, tmp_path: Path) -> None:
        shard = min(tmp_path.glob("*.safetensors"))
        weights = load_file(shard)
        name = next(iter(weights))
        del weights[name]
        save_file(weights, shard)
        refused(tmp_path, "bad_file", shard.name, name, INDEX)

    def test_no_index(self, tmp_path: Path) -> None:
        os.remove(tmp_path / INDEX)
        refused(tmp_path, "missing_file", INDEX)

    @pytest.mark.parametrize(
        "name", ["../model.safetensors", "/etc/passwd", "pytorch_model.bin", "", 3]
    )
    def test_an_index_that_leads_elsewhere(self, name: Any, tmp_path: Path) -> None:
        weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
        edit(tmp_path / INDEX, weight_map=weight_map | {"lm_head.weight": name})
        refused(tmp_path, "bad_file", "is not the name of a safetensors file")

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}'])
    def test_a_bad_index(self, text: str, tmp_path: Path) -> None:
        (tmp_path / INDEX).write_text(text)
        refused(tmp_path, "bad_file", INDEX)
