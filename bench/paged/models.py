"""Random llamas by their shape: speed does not depend on what the weights are, as long as they are not zero."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

DEMO = Path(__file__).parents[2] / "swapper" / "demo" / "demo-chat"


@dataclass(frozen=True, slots=True)
class Shape:
    """A llama's numbers, named as in its config.json."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int = 8192
    rope_theta: float = 500000.0
    tie_word_embeddings: bool = False

    @property
    def num_parameters(self) -> int:
        return sum(rows * columns for rows, columns in self.matrices().values())

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Every matrix by its published name, [rows, columns]."""
        width, inner = self.hidden_size, self.intermediate_size
        kv = width // self.num_attention_heads * self.num_key_value_heads
        found = {"model.embed_tokens.weight": (self.vocab_size, width)}
        for layer in range(self.num_hidden_layers):
            at = f"model.layers.{layer}"
            found |= {
                f"{at}.self_attn.q_proj.weight": (width, width),
                f"{at}.self_attn.k_proj.weight": (kv, width),
                f"{at}.self_attn.v_proj.weight": (kv, width),
                f"{at}.self_attn.o_proj.weight": (width, width),
                f"{at}.mlp.gate_proj.weight": (inner, width),
                f"{at}.mlp.up_proj.weight": (inner, width),
                f"{at}.mlp.down_proj.weight": (width, inner),
            }
        return found if self.tie_word_embeddings else found | {
            "lm_head.weight": (self.vocab_size, width)
        }  # fmt: skip


LLAMA_100M = Shape(768, 2048, 12, 12, 4, 32000, tie_word_embeddings=True)
LLAMA_8B = Shape(4096, 14336, 32, 32, 8, 128256)
NEXT_TO_NOTHING = Shape(
    64, 128, 2, 4, 2, 1024, tie_word_embeddings=True
)  # what it takes is the host's
TINY = Shape(256, 512, 4, 4, 2, 1024, tie_word_embeddings=True)


def write(folder: Path, shape: Shape, dtype: torch.dtype) -> Path:
    """A checkpoint of that shape, with the demo model's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DEMO / name, folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": str(dtype).removeprefix("torch."),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "eos_token_id": 2,
        **asdict(shape),
    }
    (folder / "config.json").write_text(json.dumps(config))
    random = torch.Generator().manual_seed(0)
    norms = ["model.norm.weight"]
    for layer in range(shape.num_hidden_layers):
        at = f"model.layers.{layer}"
        norms += [f"{at}.input_layernorm.weight", f"{at}.post_attention_layernorm.weight"]
    tensors = {
        name: (torch.randn(size, generator=random) * 0.02).to(dtype)
        for name, size in shape.matrices().items()
    }
    tensors |= {name: torch.ones(shape.hidden_size, dtype=dtype) for name in norms}
    save_file(tensors, folder / "model.safetensors")
    return folder
