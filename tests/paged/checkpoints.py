"""Tiny random checkpoints, written here: a llama and a byte-level vocabulary with a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_tokenizer(folder: Path) -> int:
    """All bytes, one merge, three special tokens; how many in all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*alphabet, "th"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return tokenizer.get_vocab_size()


def write_checkpoint(
    folder: Path, *, seed: int = 1, context: int = 2048, pooling: str | None = None, **changes: Any
) -> Path:
    """A random llama in float32 whose greedy answers do not repeat one token for ever."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_tokenizer(folder)
    config = {
        **LLAMA,
        "vocab_size": vocab_size,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        "eos_token_id": vocab_size - 2,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 0.3) -> torch.Tensor:
        return torch.randn(*shape, generator=random) * scale

    width, inner, kv = 64, 128, 32
    tensors = {
        "model.embed_tokens.weight": normal(vocab_size, width, scale=1.0),
        "lm_head.weight": normal(vocab_size, width, scale=0.5),
        "model.norm.weight": torch.ones(width),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.input_layernorm.weight": torch.ones(width),
            f"{at}.post_attention_layernorm.weight": torch.ones(width),
            f"{at}.self_attn.q_proj.weight": normal(width, width),
            f"{at}.self_attn.k_proj.weight": normal(kv, width),
            f"{at}.self_attn.v_proj.weight": normal(kv, width),
            f"{at}.self_attn.o_proj.weight": normal(width, width),
            f"{at}.mlp.gate_proj.weight": normal(inner, width),
            f"{at}.mlp.up_proj.weight": normal(inner, width),
            f"{at}.mlp.down_proj.weight": normal(width, inner),
        }
    save_file(tensors, folder / "model.safetensors")
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling/config.json").write_text(json.dumps({pooling: True}))
    return folder
