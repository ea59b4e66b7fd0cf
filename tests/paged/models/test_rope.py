"""Ropes of every kind, by their new and their old names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the paged engine needs torch")
pytest.importorskip("transformers", reason="transformers is what models are compared with")

import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from backends.paged.architectures import describe
from backends.paged.loader import load
from backends.paged.rope import frequencies
from backends.serving.engine import EngineError
from tests.paged.models import oracle
from tests.paged.models.agreement import agree
from tests.paged.models.paging import Paged

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 97,
    "hidden_size": 128,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
}
SHORT, LONG = [1.0 + i / 50 for i in range(32)], [2.0 + i / 3 for i in range(32)]
KINDS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 128},
    "yarn as deepseek": {
        "rope_type": "yarn",
        "factor": 40.0,
        "beta_fast": 16,
        "beta_slow": 2,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "original_max_position_embeddings": 128,
    },
    "yarn as gpt-oss": {
        "rope_type": "yarn",
        "factor": 32.0,
        "truncate": False,
        "attention_factor": 1.3,
        "original_max_position_embeddings": 128,
    },
    "yarn beyond both ends": {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 1000,
        "beta_slow": 1e-6,
        "original_max_position_embeddings": 128,
    },
    "yarn at one place": {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 2,
        "beta_slow": 2,
        "truncate": False,
        "original_max_position_embeddings": 128,
    },
    "longrope": {
        "short_factor": SHORT,
        "long_factor": LONG,
        "original_max_position_embeddings": 128,
    },
}


@pytest.mark.parametrize("context", [100, 512, 1500])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("naming", ["new", "old"])
def test_frequencies(kind: str, context: int, naming: str) -> None:
    given = {"rope_type": kind, **KINDS[kind]}
    theirs = transformers.LlamaConfig(**LLAMA, rope_parameters={"rope_theta": 5000.0, **given})
    wanted, magnitude = ROPE_INIT_FUNCTIONS[given["rope_type"]](theirs, "cpu", seq_len=context)
    if naming == "new":
        config = LLAMA | {"rope_parameters": {"rope_theta": 5000.0, **given}}
    else:
        given["type"] = given.pop("rope_type")
        config = LLAMA | {"rope_theta": 5000.0, "rope_scaling": given}
    values, scale = frequencies(describe(config)[0].ropes[0], context)
    torch.testing.assert_close(values, wanted, rtol=1e-6, atol=0)
    assert scale == pytest.approx(magnitude)


def test_a_context_beside_wins() -> None:
    config = LLAMA | {"rope_scaling": {"type": "su", **KINDS["longrope"]}}
    config["original_max_position_embeddings"] = 256
    rope = describe(config)[0].ropes[0]
    assert rope.kind == "longrope"
    assert rope.parameters["original_max_position_embeddings"] == 256


@pytest.mark.parametrize("stretched", [64, 512, 1024])
def test_yarn_lengthens_the_context_that_is_served(stretched: int) -> None:
    """Users add it and leave `max_position_embeddings`, 512 here, as it was."""
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": stretched // 4}
    assert describe(LLAMA | {"rope_scaling": yarn})[0].max_context == max(512, stretched)


@pytest.mark.parametrize("empty", [None, {}])
def test_old_settings_that_are_empty_count_as_absent(empty: Any) -> None:
    new = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0}
    rope = describe(LLAMA | {"rope_scaling": empty, "rope_parameters": new})[0].ropes[0]
    assert (rope.kind, rope.theta) == ("linear", 5.0)


@pytest.mark.parametrize(
    ("scaling", "reason"),
    [
        ({"type": "mrope", "mrope_section": [1, 2]}, "mrope"),
        ({"type": "linear"}, "lacks factor"),
        ({"rope_type": "llama3", "factor": 8.0}, "lacks low_freq_factor"),
        ({"rope_type": "yarn", "factor": "4"}, "factor is '4', not a number"),
        ({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}, "list of 32 numbers"),
        ({"type": "linear", "factor": 0}, "factor is 0, not a number above nought"),
        ({"type": "linear", "factor": -2.0}, "factor is -2"),
        ({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1.0}, "rope_theta is 1.0"),
        ({"rope_type": "yarn", "factor": 4.0, "truncate": "no"}, "truncate is 'no'"),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": "64"},
            "original_max_position_embeddings is '64'",
        ),
        (
            {**KINDS["llama3"], "rope_type": "llama3", "low_freq_factor": 4.0},
            "low_freq_factor is 4.0, not below",
        ),
        (
            {**KINDS["longrope"], "type": "longrope", "original_max_position_embeddings": 1},
            "at least 2",
        ),
    ],
)
def test_what_is_odd_is_refused(scaling: dict[str, Any], reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        describe(LLAMA | {"rope_scaling": scaling})


@pytest.mark.parametrize("context", [32, 256])
def test_longrope_is_chosen_by_the_context(context: int, tmp_path: Path) -> None:
    """transformers goes by the text's length: short beside short, long beside long."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0, 1.1, 1.3],
        "long_factor": [2.0, 3.0, 5.0],
        "original_max_position_embeddings": 32,
    }
    model = oracle.save(tmp_path, "phi3", rope_parameters=rope, original_max_position_embeddings=32)
    _, decoder = load(str(tmp_path), "float32", "cpu", context=context)
    agree(model, decoder, length=20 if context == 32 else 84)


def test_dynamic_beyond_what_was_trained(tmp_path: Path) -> None:
    """transformers stretches for the text it sees; served with that context, so do we."""
    rope = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 10000.0}
    model = oracle.save(tmp_path, "llama", max_position_embeddings=32, rope_parameters=rope)
    tokens = list(range(3, 90))
    _, decoder = load(str(tmp_path), "float32", "cpu", context=len(tokens))
    logits = Paged(decoder, 1, len(tokens)).step([(0, tokens)])[0]
    torch.testing.assert_close(logits, oracle.logits(model, tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_type", ["llama", "smollm3", "mixtral", "qwen2"])
def test_old_names_load_as_new_ones(model_type: str, tmp_path: Path) -> None:
    yarn = {"rope_theta": 777.0, "rope_type": "yarn", **KINDS["yarn"]}
    model = oracle.save(tmp_path, model_type, head_dim=8, rope_parameters=yarn)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["rope_scaling"] = config.pop("rope_parameters")
    config["rope_theta"] = config["rope_scaling"].pop("rope_theta")
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))
    agree(model, load(str(tmp_path), "auto", "cpu")[1])


def test_gemma3_by_its_old_names(tmp_path: Path) -> None:
    """Published files: two thetas side by side, a stretched rope that is the global one's alone."""
    linear = {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0}
    model = oracle.save(
        tmp_path,
        "gemma3_text",
        head_dim=16,
        sliding_window=12,
        sliding_window_pattern=3,
        num_hidden_layers=6,
        rope_parameters={
            "full_attention": linear,
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    )
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"], config["layer_types"]
    config |= {"rope_theta": 5000.0, "rope_local_base_freq": 100.0, "sliding_window_pattern": 3}
    config["rope_scaling"] = {"factor": 8.0, "rope_type": "linear"}
    path.write_text(json.dumps(config))
    agree(model, load(str(tmp_path), "auto", "cpu")[1])
