"""How much memory a safetensors checkpoint will take when `paged` serves it, before anything is loaded.

    on a CPU = the process + weights in the type computed in + KV cache + the widest step
    on a GPU = the same without the process, and the CUDA context; the host then keeps the weights too,
               as the image that a sleeping model wakes from

A first guess: what a worker measures replaces it. The KV cache becomes resident as it is used, so a worker
that was just loaded has less than this. Against workers of three sizes (2.6M, 110M and 0.5B parameters, 2k of
context, as loaded and after a long prompt) it was right to 15 %, with torch 2.13 for CPUs and 2.11 and 2.13
for CUDA 13; with a GPU in use it was not compared.

The process counts whole, as if nobody else had its libraries in memory. A worker that is forked shares
nearly all of it with its parent and the other workers: it adds 30 MB of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from swapper.core.footprint import CUDA_DEVICE_BYTES, CUDA_PROCESS_BYTES, MIB, first_use_bytes

PROCESS_BYTES = 225 * MIB  # Python, torch built for CPUs, tokenizers and the HTTP server, measured
GPU_BUILD_BYTES = 320 * MIB  # what a torch built for CUDA takes more, though nothing runs on a GPU
VOCABULARY_ENTRY_BYTES = 600  # of a tokenizer in memory
BLOCK_TOKENS = 16  # KV is taken in such steps
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
_LARGEST = 1 << 40
_NEVER_LOADED = re.compile(r"(^|\.)(vision_tower|multi_modal_projector)\.|rotary_emb\.inv_freq$")
# Gemma 3 is published without what was the usual in its authors' code.
_LEFT_OUT = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file; `kind` is the format's name of its type (`BF16`)."""

    name: str
    kind: str
    elements: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class CheckpointShape:
    """What of a checkpoint decides its footprint. Sizes count elements."""

    weights: int
    kv_per_token: int
    step_per_token: int  # numbers at work at once, for each token of a step
    vocabulary: int
    trained_context: int
    dtype: str  # what a GPU computes in


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """How it shall be loaded, as far as it costs memory."""

    context: int
    kv_tokens: int | None = None
    parallel: int = 8
    batch: int | None = None
    dtype: str = "auto"
    gpu_build: bool = False  # whether the torch it runs with was built for GPUs

    @property
    def pool_tokens(self) -> int:
        """The KV cache, in tokens."""
        tokens = self.kv_tokens or self.context
        return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def read_checkpoint_shape(
    config: Mapping[str, Any], tensors: Iterable[StoredTensor]
) -> CheckpointShape:
    """The facts of config.json and headers. What they do not say counts as nothing."""
    facts = _facts(config)

    def number(*keys: str) -> int:
        return next((size for key in keys if (size := int(_number(facts.get(key))))), 0)

    heads = number("num_attention_heads")
    head_dim = number("head_dim") or (number("hidden_size") // heads if heads else 0)
    kv_heads = number("num_key_value_heads") or heads
    experts = number("num_experts_per_tok", "num_experts_per_token")
    inner_size = number("intermediate_size")
    if experts:
        inner_size = max(inner_size, experts * (number("moe_intermediate_size") or inner_size))
    return CheckpointShape(
        weights=sum(_elements(tensor) for tensor in tensors if _is_loaded(tensor.name, facts)),
        kv_per_token=2 * number("num_hidden_layers") * kv_heads * head_dim,
        step_per_token=3 * inner_size + 6 * number("hidden_size") + 3 * heads * head_dim,
        vocabulary=number("vocab_size"),
        trained_context=_trained_context(facts),
        dtype=_dtype(facts),
    )


def kv_bytes(shape: CheckpointShape, plan: CheckpointPlan, *, on_gpu: bool) -> int:
    """The KV cache."""
    return plan.pool_tokens * shape.kv_per_token * _size(shape, plan, on_gpu)


def host_bytes(shape: CheckpointShape, plan: CheckpointPlan) -> int:
    """Memory of a process that computes on the CPU."""
    size = _size(shape, plan, on_gpu=False)
    kv = kv_bytes(shape, plan, on_gpu=False)
    process = _process_bytes(shape, gpu_build=plan.gpu_build)
    return process + shape.weights * size + kv + _step_bytes(shape, plan, 512, size)


def gpu_bytes(shape: CheckpointShape, plan: CheckpointPlan) -> int:
    """What it takes of a GPU's memory."""
    size = _size(shape, plan, on_gpu=True)
    kv = kv_bytes(shape, plan, on_gpu=True)
    return CUDA_DEVICE_BYTES + shape.weights * size + kv + _step_bytes(shape, plan, 2048, size)


def host_bytes_beside_gpu(shape: CheckpointShape, plan: CheckpointPlan) -> int:
    """What its process takes of the host's memory meanwhile."""
    image = shape.weights * _size(shape, plan, on_gpu=True)
    return _process_bytes(shape, gpu_build=True) + CUDA_PROCESS_BYTES + image


def _process_bytes(shape: CheckpointShape, *, gpu_build: bool) -> int:
    libraries = PROCESS_BYTES + (GPU_BUILD_BYTES if gpu_build else 0)
    entries = shape.vocabulary * VOCABULARY_ENTRY_BYTES
    return libraries + entries + first_use_bytes(shape.vocabulary)


def _step_bytes(shape: CheckpointShape, plan: CheckpointPlan, usual: int, size: int) -> int:
    rows = plan.batch or usual
    return rows * shape.step_per_token * size + 2 * plan.parallel * shape.vocabulary * 4


def _size(shape: CheckpointShape, plan: CheckpointPlan, on_gpu: bool) -> int:
    if plan.dtype != "auto":
        return SIZES[plan.dtype]
    return SIZES.get(shape.dtype, 2) if on_gpu else 4


def _facts(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What config.json says of the language model, which may be one part of several."""
    inner = config.get("text_config")
    facts = {**config, **inner} if isinstance(inner, dict) else config
    left_out = _LEFT_OUT if facts.get("model_type") == "gemma3_text" else {}
    return {**left_out, **facts}


def _number(value: object) -> float:
    """The value, if it is a size that can be; 0 if not."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 < value < _LARGEST else 0  # type: ignore[operator,return-value]


def _trained_context(facts: Mapping[str, Any]) -> int:
    """In tokens. Yarn stretches it, whether or not `max_position_embeddings` was raised with it."""
    longest = int(_number(facts.get("max_position_embeddings")))
    rope = facts.get("rope_scaling") or facts.get("rope_parameters")
    if not isinstance(rope, dict) or "yarn" not in (rope.get("rope_type"), rope.get("type")):
        return longest
    key = "original_max_position_embeddings"
    trained = _number(facts.get(key)) or _number(rope.get(key)) or longest
    return max(longest, int(min(trained * _number(rope.get("factor")), _LARGEST)))


def _is_loaded(name: str, facts: Mapping[str, Any]) -> bool:
    """Not what sees, nor a head that is the embedding once more."""
    if name.endswith("lm_head.weight"):
        return facts.get("tie_word_embeddings") is not True
    return not _NEVER_LOADED.search(name)


def _elements(tensor: StoredTensor) -> int:
    """Numbers that it becomes: MXFP4 is expanded, two to a byte, and its scales are used up."""
    if tensor.kind == "U8" and tensor.name.endswith("_blocks"):
        return 2 * tensor.num_bytes
    return 0 if tensor.kind == "U8" and tensor.name.endswith("_scales") else tensor.elements


def _dtype(facts: Mapping[str, Any]) -> str:
    named = facts.get("dtype") or facts.get("torch_dtype")
    return named if isinstance(named, str) and named in SIZES else "bfloat16"
