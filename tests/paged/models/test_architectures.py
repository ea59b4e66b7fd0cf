"""Every architecture computes what transformers does, from the same files on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the paged engine needs torch")
pytest.importorskip("transformers", reason="transformers is what models are compared with")

from backends.paged.loader import load
from tests.paged.models import oracle
from tests.paged.models.agreement import agree

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LAYER_TYPES = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}

CASES = {
    "llama": ("llama", {}),
    "llama with biases, heads of another width": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "head_dim": 16},
    ),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, llama3 rope": ("llama", {"rope_parameters": LLAMA3 | {"rope_theta": 500000.0}}),
    "llama, yarn": ("llama", {"rope_parameters": YARN | {"rope_theta": 10000.0}}),
    "llama, linear rope": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    ),
    "mistral": ("mistral", {"sliding_window": 12}),
    "mistral without window": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2 with windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 2},
    ),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3_moe": (
        "qwen3_moe",
        {
            "head_dim": 16,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [1],
        },
    ),
    "qwen3_moe, shares not normalised": (
        "qwen3_moe",
        {
            "head_dim": 16,
            "num_experts": 5,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 40,
            "norm_topk_prob": False,
            "decoder_sparse_step": 2,
        },
    ),
    "mixtral": ("mixtral", EXPERTS | {"sliding_window": None}),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": (
        "gemma2",
        {"head_dim": 16, "sliding_window": 12, "query_pre_attn_scalar": 24},
    ),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 16,
            "sliding_window": 12,
            "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
            "num_hidden_layers": 6,
        },
    ),
    "phi3": ("phi3", {"sliding_window": 12}),
    "olmo2": ("olmo2", {}),
    "olmo3": (
        "olmo3",
        {
            "sliding_window": 12,
            "rope_parameters": {
                "full_attention": YARN | {"rope_theta": 5000.0, "attention_factor": 1.1},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            },
        },
    ),
    "ernie4_5": ("ernie4_5", {"head_dim": 16}),
    "ernie4_5 with biases": ("ernie4_5", {"head_dim": 16, "use_bias": True}),
    "glm": ("glm", {"head_dim": 16}),
    "glm4": ("glm4", {"head_dim": 16}),
    "cohere": ("cohere", {"logit_scale": 0.5}),
    "cohere with biases": ("cohere", {"attention_bias": True}),
    "cohere2": ("cohere2", {"sliding_window": 12, "layer_types": LAYER_TYPES}),
    "seed_oss": ("seed_oss", {"head_dim": 16}),
    "starcoder2": ("starcoder2", {"sliding_window": 12}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.4,
            "logits_scaling": 2.0,
        },
    ),
    "gpt_oss": ("gpt_oss", EXPERTS | {"head_dim": 16, "sliding_window": 12}),
}


@pytest.mark.parametrize("case", CASES)
def test_computes_what_transformers_does(case: str, tmp_path: Path) -> None:
    model_type, settings = CASES[case]
    model = oracle.save(tmp_path, model_type, **settings)
    _, decoder = load(str(tmp_path), "float32", "cpu")
    agree(model, decoder)
