"""Writes a trained model twice, from one set of rounded weights: a safetensors folder and a GGUF."""

import json
from ctypes import byref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from training.documents import END, END_OF_TEXT
from training.model import Llama, Shape
from training.tokenizer import MARKERS, SPECIAL

if TYPE_CHECKING:
    from training.recipes import Recipe

Weights = dict[str, NDArray[np.float16]]

GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def export(model: Llama, recipe: "Recipe", tokenizer: Tokenizer, out: Path) -> None:
    weights = {
        name: value.detach().numpy().astype(np.float16) for name, value in model.named_parameters()
    }
    write_folder(out / recipe.name, weights, recipe, tokenizer)
    target = out / f"{recipe.name}.gguf"
    if recipe.quantise:
        unquantised = out / f"{recipe.name}.f16.gguf"
        write_gguf(unquantised, weights, recipe, tokenizer)
        quantise(unquantised, target)
        unquantised.unlink()
    else:
        write_gguf(target, weights, recipe, tokenizer)


def write_folder(folder: Path, weights: Weights, recipe: "Recipe", tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(recipe.template)
    write_json(folder / "config.json", model_config(recipe.shape, tokenizer))
    write_json(folder / "generation_config.json", generation_config(tokenizer))
    write_json(folder / "tokenizer_config.json", tokenizer_config(recipe))


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def model_config(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        # Both spellings: older readers know only the first, newer ones write the second.
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    ends = [tokenizer.token_to_id(END), tokenizer.token_to_id(END_OF_TEXT)]
    return {"eos_token_id": ends, "pad_token_id": ends[1]}


def tokenizer_config(recipe: "Recipe") -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END_OF_TEXT,
        "bos_token": None,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": recipe.shape.context,
    }


def write_gguf(path: Path, weights: Weights, recipe: "Recipe", tokenizer: Tokenizer) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    add_description(writer, recipe)
    add_shape(writer, recipe.shape)
    add_tokenizer(writer, recipe, tokenizer)
    for name, tensor in weights.items():
        is_norm = tensor.ndim == 1
        data = tensor.astype(np.float32) if is_norm else for_llama_cpp(name, tensor, recipe.shape)
        writer.add_tensor(gguf_name(name), data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_description(writer: gguf.GGUFWriter, recipe: "Recipe") -> None:
    writer.add_type("model")
    writer.add_name(recipe.name)
    writer.add_description(recipe.summary)
    writer.add_license("MIT")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.vocab_size)


def add_tokenizer(writer: gguf.GGUFWriter, recipe: "Recipe", tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(recipe.pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types([token_type(token) for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(tokenizer.token_to_id(END))
    writer.add_eot_token_id(tokenizer.token_to_id(END))
    writer.add_pad_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(recipe.template)


def token_type(token: str) -> gguf.TokenType:
    if token in SPECIAL:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.USER_DEFINED if token in MARKERS else gguf.TokenType.NORMAL


def gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"


def for_llama_cpp(name: str, tensor: NDArray[np.float16], shape: Shape) -> NDArray[np.float16]:
    """llama.cpp turns neighbouring pairs, where the checkpoint turns half against half."""
    heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    halves = tensor.reshape(heads, 2, shape.head_dim // 2, shape.hidden)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.shape)


def quantise(source: Path, target: Path) -> None:
    """To Q4_K_M; every row must be a multiple of 256, or llama.cpp falls back without a word."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    failed = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), byref(params)
    )
    if failed:
        raise RuntimeError(f"llama.cpp could not quantise {source}")
