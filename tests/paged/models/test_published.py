"""Published models: the config.json of each, read at its full size, against what transformers makes of it.

Nothing is computed and no memory is taken at that size: models are on the meta device. How their files name
the tensors is what transformers writes for them, but for what `as_published` says.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the paged engine needs torch")
pytest.importorskip("transformers", reason="transformers is what models are compared with")

import torch
import transformers
from torch import nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from backends.paged import weights
from backends.paged.architectures import ARCHITECTURES, describe
from backends.paged.batch import BLOCK_SIZE, KvCache
from backends.paged.decoder import Decoder
from backends.paged.loader import load
from backends.paged.rope import frequencies
from backends.serving.engine import EngineError
from swapper.core.checkpoint_footprint import CheckpointPlan, StoredTensor, kv_bytes
from swapper.core.checkpoint_footprint import read_checkpoint_shape as read_shape
from tests.paged.models import oracle
from tests.paged.models.agreement import agree

FOLDER = Path(__file__).with_name("published")
Layouts = dict[str, tuple[tuple[int, ...], str]]  # by name: shape and type

# Numbers in the published files, as their pages say; of gpt-oss unpacked.
PARAMETERS = {
    "aya-expanse-8b": 8_028_033_024,
    "command-r-v01": 34_980_831_232,
    "command-r7b-12-2024": 8_028_033_024,
    "deepseek-coder-6.7b-instruct": 6_740_512_768,
    "deepseek-r1-distill-qwen-1.5b": 1_777_088_000,
    "ernie-4.5-0.3b-pt": 360_748_032,
    "gemma-2-27b-it": 27_227_128_320,
    "gemma-2-2b-it": 2_614_341_888,
    "gemma-2-9b-it": 9_241_705_984,
    "gemma-3-1b-it": 999_885_952,
    "gemma-3-270m-it": 268_098_176,
    "gemma-3-27b-it": 27_432_406_640,
    "gemma-3-4b-it": 4_300_079_472,
    "gemma-7b": 8_537_680_896,
    "glm-4-9b-0414": 9_400_279_040,
    "glm-4-9b-chat-hf": 9_399_951_360,
    "gpt-oss-120b": 116_829_156_672,
    "gpt-oss-20b": 20_914_757_184,
    "granite-3.1-8b-instruct": 8_170_848_256,
    "granite-3.3-2b-instruct": 2_533_539_840,
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-8b-instruct": 8_030_261_248,
    "llama-3.2-1b-instruct": 1_235_814_400,
    "llama-3.3-70b-instruct": 70_553_706_496,
    "ministral-8b-instruct-2410": 8_019_808_256,
    "mistral-7b-instruct-v0.3": 7_248_023_552,
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-nemo-instruct-2407": 12_247_782_400,
    "mistral-small-24b-instruct-2501": 23_572_403_200,
    "mistral-small-3.1-24b-instruct-2503": 24_011_361_280,
    "mixtral-8x7b-instruct-v0.1": 46_702_792_704,
    "olmo-2-0325-32b": 32_234_279_936,
    "olmo-2-1124-7b-instruct": 7_298_617_344,
    "olmo-3.1-32b-instruct": 32_233_522_176,
    "phi-3-mini-128k-instruct": 3_821_079_552,
    "phi-3-mini-4k-instruct": 3_821_079_552,
    "phi-4": 14_659_507_200,
    "phi-4-mini-instruct": 3_836_021_760,
    "qwen2.5-0.5b-instruct": 494_032_768,
    "qwen2.5-72b-instruct": 72_706_203_648,
    "qwen2.5-7b-instruct": 7_615_616_512,
    "qwen2.5-7b-instruct-yarn": 7_615_616_512,
    "qwen3-0.6b": 751_632_384,  # its head is there twice
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-32b-yarn": 32_762_123_264,
    "qwen3-4b-instruct-2507": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-coder-30b-a3b-instruct": 30_532_122_624,
    "qwen3-embedding-0.6b": 595_776_512,
    "seed-oss-36b-instruct": 36_151_104_512,
    "smollm2-135m-instruct": 134_515_008,
    "smollm3-3b": 3_075_098_624,
    "starcoder2-3b": 3_030_371_328,
    "tinyllama-1.1b-chat": 1_100_048_384,
    "yarn-llama-2-7b-128k": 6_738_415_616,
}
# Tokens, where yarn was added and `max_position_embeddings` left as it was.
STRETCHED = {"qwen2.5-7b-instruct-yarn": 131072, "qwen3-32b-yarn": 131072}

SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 48,
    "moe_intermediate_size": 40,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "head_dim": 16,
    "num_experts": 5,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "experts_per_token": 2,
    "sliding_window": 12,
    "image_size": 28,
    "patch_size": 14,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Model:
    """One published model: its config.json, transformers' model of it, and ours."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.config = json.loads((FOLDER / f"{name}.json").read_text())
        self.theirs = made_by_transformers(self.config, "meta", torch.bfloat16)
        self.tensors = as_published(name, self.config, written_by_transformers(self.theirs))
        self.spec, self.names = describe(self.config)
        self.decoder = Decoder(self.spec, torch.bfloat16, "meta")

    @property
    def text(self) -> Any:
        """transformers' settings of the language model."""
        return self.theirs.config.get_text_config()

    @property
    def layers(self) -> nn.ModuleList:
        return self.theirs.get_decoder().layers


class Headers:
    """What a checkpoint's headers say."""

    def __init__(self, layouts: Layouts) -> None:
        self._layouts = layouts

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._layouts)

    def layout(self, name: str) -> tuple[tuple[int, ...], str]:
        return self._layouts[name]


def made_by_transformers(
    config: Mapping[str, Any], device: str, dtype: torch.dtype
) -> transformers.PreTrainedModel:
    values = copy.deepcopy(dict(config))
    for key in ("auto_map", "quantization_config"):
        values.pop(key, None)
    if values["model_type"] == "mistral3":
        values["tie_word_embeddings"] = False  # its files have a head; transformers finds it there
    theirs = transformers.CONFIG_MAPPING[values["model_type"]].from_dict(values)
    make = getattr(transformers, values["architectures"][0])._from_config
    with torch.device(device):
        return make(theirs, dtype=dtype, attn_implementation="eager").eval()


def written_by_transformers(model: transformers.PreTrainedModel) -> Layouts:
    tensors = revert_weight_conversion(model, model.state_dict())
    return {name: (tuple(tensor.shape), "BF16") for name, tensor in tensors.items()}


def as_published(name: str, config: Mapping[str, Any], tensors: Layouts) -> Layouts:
    """The tensors as the published files have them."""
    heads = [key for key in tensors if key.endswith("lm_head.weight")]
    if describe(config)[0].is_tied and name != "qwen3-0.6b":
        tensors = {key: value for key, value in tensors.items() if key not in heads}
    if name == "qwen3-embedding-0.6b":
        tensors = {key.removeprefix("model."): value for key, value in tensors.items()}
    if name == "llama-2-7b":
        for layer in range(config["num_hidden_layers"]):
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = ((64,), "F32")
    if "quantization_config" in config:
        for key in [key for key in tensors if key.endswith(("gate_up_proj", "down_proj"))]:
            (experts, width, height), _ = tensors.pop(key)
            groups = width // 32
            tensors[f"{key}_blocks"] = ((experts, height, groups, 16), "U8")
            tensors[f"{key}_scales"] = ((experts, height, groups), "U8")
    return tensors


def numbers_in(name: str, shape: tuple[int, ...]) -> int:
    if name.endswith(("_scales", "inv_freq")):
        return 0
    return math.prod(shape) * (2 if name.endswith("_blocks") else 1)


@pytest.fixture(scope="module", params=sorted(PARAMETERS))
def model(request: pytest.FixtureRequest) -> Model:
    return Model(request.param)


def test_every_architecture_is_among_them() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(PARAMETERS)
    configs = [json.loads(path.read_text()) for path in FOLDER.glob("*.json")]
    assert {config["architectures"][0] for config in configs} == set(ARCHITECTURES)


def test_every_architecture_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs/models.md").read_text()
    assert set(re.findall(r"`(\w+(?:ForCausalLM|ForConditionalGeneration))`", page)) == set(
        ARCHITECTURES
    )
    assert f"{len(PARAMETERS)} published configurations" in page


def test_all_of_it_is_loaded_and_nothing_is_left_over(model: Model) -> None:
    published = sum(numbers_in(name, shape) for name, (shape, _) in model.tensors.items())
    assert published == PARAMETERS[model.name]
    jobs = weights.plan(model.decoder, Headers(model.tensors), model.names)  # type: ignore[arg-type]
    parameters = dict(model.decoder.named_parameters())
    assert {job.name for job in jobs} == set(parameters)
    used = {name for job in jobs for name in job.expects(tuple(parameters[job.name].shape))}
    unused = "".join(model.tensors.keys() - used)
    assert not unused or any(
        part in unused for part in ("vision_tower", "inv_freq", "lm_head" * model.spec.is_tied)
    )


@pytest.mark.parametrize("name", ["gemma-3-4b-it", "mistral-small-3.1-24b-instruct-2503"])
def test_beside_images_by_the_names_of_transformers_4_52(name: str) -> None:
    """Those who tuned such a model since then have written these."""
    model = Model(name)
    moved = {"language_model.model.": "model.language_model.", "language_model.lm_head": "lm_head"}
    for part in ("vision_tower.", "multi_modal_projector."):
        moved[part] = f"model.{part}"
    renamed: Layouts = {}
    for key, value in model.tensors.items():
        old = next(old for old in moved if key.startswith(old))
        renamed[key.replace(old, moved[old], 1)] = value
    assert weights.plan(model.decoder, Headers(renamed), model.names)  # type: ignore[arg-type]


def test_a_tensor_less_is_missed(model: Model) -> None:
    """Or the plan above could be complete with anything."""
    last = f"layers.{model.spec.num_layers - 1}."
    name = next(name for name in model.tensors if last in name and "vision" not in name)
    some = {key: value for key, value in model.tensors.items() if key != name}
    with pytest.raises(EngineError, match=f"lacks {name}"):
        weights.plan(model.decoder, Headers(some), model.names)  # type: ignore[arg-type]


def test_positions(model: Model) -> None:
    text, spec = model.text, model.spec
    assert spec.max_context == STRETCHED.get(model.name, text.max_position_embeddings)
    rotary = type(model.theirs.get_decoder().rotary_emb)(text)
    kinds = getattr(text, "layer_types", None)
    for layer, theirs in zip(spec.layers, model.layers, strict=True):
        uses = getattr(theirs.self_attn, "use_rope", text.model_type != "cohere2" or layer.window)
        assert (layer.rope is not None) == bool(uses)
        if layer.rope is None:
            continue
        kind = f"{kinds[theirs.self_attn.layer_idx]}_" if len(spec.ropes) > 1 else ""
        rope = spec.ropes[layer.rope]
        context = rope.parameters.get("original_max_position_embeddings", spec.max_context)
        values, magnitude = frequencies(rope, context)
        wanted = getattr(rotary, f"{kind}inv_freq")
        torch.testing.assert_close(values, wanted, rtol=1e-6, atol=0)
        assert magnitude == pytest.approx(getattr(rotary, f"{kind}attention_scaling"), rel=1e-6)
    if spec.ropes[0].kind == "longrope":
        wanted, magnitude = ROPE_INIT_FUNCTIONS["longrope"](text, "cpu", spec.max_context)
        values, scale = frequencies(spec.ropes[0], spec.max_context)
        torch.testing.assert_close(values, wanted, rtol=1e-6, atol=0)
        assert scale == pytest.approx(magnitude)


def test_windows_scales_and_caps(model: Model) -> None:
    text, spec = model.text, model.spec
    for layer, theirs in zip(spec.layers, model.layers, strict=True):
        attention = theirs.self_attn
        window = getattr(attention, "sliding_window", getattr(text, "sliding_window", None))
        assert layer.window == (window or 0)
        scale = spec.attention_scale or spec.head_dim**-0.5
        assert scale == pytest.approx(attention.scaling)
        assert spec.attention_softcap == (getattr(text, "attn_logit_softcapping", None) or 0)
    norm = model.theirs.get_decoder().norm
    eps = next(getattr(norm, name) for name in ("variance_epsilon", "eps") if hasattr(norm, name))
    assert spec.norm.eps == eps
    assert spec.logits_softcap == (getattr(text, "final_logit_softcapping", None) or 0)
    scale = getattr(text, "logit_scale", 1 / getattr(text, "logits_scaling", 1))
    assert spec.logits_scale == pytest.approx(scale)
    assert spec.residual_scale == getattr(text, "residual_multiplier", 1)
    gemma = spec.hidden_size**0.5 if text.model_type.startswith("gemma") else 1
    assert spec.embedding_scale == getattr(text, "embedding_multiplier", gemma)


def test_experts_and_vocabulary(model: Model) -> None:
    text, spec = model.text, model.spec
    if spec.experts:
        assert spec.experts.per_token == text.num_experts_per_tok
        assert spec.experts.normalized == getattr(text, "norm_topk_prob", True)
    assert spec.vocab_size == text.vocab_size


def test_its_memory_is_estimated(model: Model) -> None:
    stored = [
        StoredTensor(name, kind, math.prod(shape), math.prod(shape) * (1 if kind == "U8" else 2))
        for name, (shape, kind) in model.tensors.items()
    ]
    shape = read_shape(model.config, stored)
    assert shape.weights == sum(p.numel() for p in model.decoder.parameters())
    assert abs(2 * shape.weights - model.decoder.num_bytes) < 1 << 20  # rope, and alignment
    plan = CheckpointPlan(BLOCK_SIZE)
    size = KvCache.bytes_per_block(
        model.spec.num_layers, model.spec.num_kv_heads, model.spec.head_dim, torch.bfloat16
    )
    assert kv_bytes(shape, plan, on_gpu=False) == 2 * size
    assert shape.trained_context == model.spec.max_context
    assert shape.vocabulary == model.spec.vocab_size


def distinct() -> list[str]:
    """One of each architecture with each of its ropes."""
    found: dict[Any, str] = {}
    for name in sorted(PARAMETERS):
        config = json.loads((FOLDER / f"{name}.json").read_text())
        rope = config.get("rope_scaling") or {}
        found.setdefault(
            (config["architectures"][0], rope.get("rope_type", rope.get("type"))), name
        )
    return sorted(found.values())


@pytest.mark.parametrize("name", distinct())
def test_made_small_it_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    config = small(json.loads((FOLDER / f"{name}.json").read_text()))
    theirs = made_by_transformers(config, "cpu", torch.float32)
    oracle.randomize(theirs)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    agree(theirs, load(str(tmp_path), "float32", "cpu", context=64)[1])


def small(config: dict[str, Any]) -> dict[str, Any]:
    """The same but for sizes. What is not said stays unsaid."""
    config = copy.deepcopy(config)
    config.pop("quantization_config", None)
    for part in (config, config.get("vision_config", {}), config.get("text_config", {})):
        part |= {key: value for key, value in SMALL.items() if part.get(key) is not None}
        kv = part.get("num_key_value_heads", 0)
        part |= {"num_key_value_heads": min(kv, 2)} if kv > 1 else {}
        part |= {"vocab_size": SMALL["vocab_size"]} if part is config.get("text_config") else {}
        for key in ("layer_types", "no_rope_layers"):
            part |= {key: part[key][: SMALL["num_hidden_layers"]]} if key in part else {}
        rotated = int(16 * part.get("partial_rotary_factor", 1))
        stretch = part.get("rope_scaling") or {}
        stretch |= {
            key: value[: rotated // 2] for key, value in stretch.items() if type(value) is list
        }
    return config


ODD = [
    None, True, 0, -1, 1, 7, 1.5, -0.5, 1e-300, 1e308, float("nan"), float("inf"), 1 << 64, 10**400,
    "", "x", "yarn", [], [[]], [None], [1.0] * 48, {}, {"a": 1}, {"rope_type": "yarn"},
    {"full_attention": 3}, {"rope_type": "longrope", "factor": -1},
]  # fmt: skip


@pytest.mark.parametrize("name", distinct())
def test_whatever_a_setting_holds_is_understood_or_refused_in_a_sentence(name: str) -> None:
    config = json.loads((FOLDER / f"{name}.json").read_text())
    for place in (config, *(part for part in config.values() if isinstance(part, dict))):
        for key in list(place):
            kept = place[key]
            for odd in ODD:
                place[key] = odd
                assert is_understood_or_refused(config)
            place[key] = kept


def is_understood_or_refused(config: dict[str, Any]) -> bool:
    try:
        ropes = describe(config)[0].ropes
    except EngineError as error:
        return error.kind in ("bad_file", "unsupported") and "\n" not in error.reason
    found = [frequencies(rope, 4096) for rope in ropes]
    return all(values.isfinite().all() and math.isfinite(scale) for values, scale in found)
