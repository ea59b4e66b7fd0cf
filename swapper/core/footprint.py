"""How much memory a GGUF will take, worked out from its header before anything is loaded.

    host  = weights kept there (file pages, mapped) + their repacked copies + KV + compute + outputs
            + vocabulary + the process itself
    a GPU = weights of its layers + their KV + compute + the CUDA context

What lets a model see (`mmproj`) is where its layers are, on the host where none is on a GPU.

KV is zeroed when a context is made, so all of it is resident at once, and so are the weights, as the
loader reads them all. A first guess: what a worker measures replaces it. Against workers of five
files (0.5B in Q4_K_M and F16, 110M in Q4_K_M, a tiny one; 2k to 32k of context) it was right to 13 %;
compute agrees to 4 MiB with what llama.cpp plans for five architectures. GPUs were not measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MIB = 1 << 20

# Measured on workers of this version: Python, its libraries and the HTTP server; and per token of the
# vocabulary its text, its score and its place in two hash tables.
PROCESS_BYTES = 44 * MIB
VOCABULARY_ENTRY_BYTES = 270
# What comes after `ready`, with the first answers and the first rest: templates and llguidance, and per token
# the vocabulary once more, as grammars want it. Measured: 60 to 63 MiB with 151 936 tokens.
FIRST_USE_BYTES = 12 * MIB
GRAMMAR_ENTRY_BYTES = 350
CUDA_DEVICE_BYTES = 450 * MIB  # context, kernels and libraries on the device
CUDA_PROCESS_BYTES = 250 * MIB  # and what they add to the process

CACHE_TYPES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
_REPACKED = {2, 12, 20, 39}  # Q4_0, Q4_K, IQ4_NL, MXFP4: interleaved at load for AVX2 and NEON
_BLOCK = re.compile(r"blk\.(\d+)\.")
_KV_PADDING = 256  # cells are allocated in such steps
_LEAST_OUTPUTS = 16  # rows of logits a worker can have at once, however few requests it takes
_IMAGE_TOKENS = 1024  # of an image, where its size decides
_KEPT_IMAGES_BYTES = 64 * MIB  # the worker's bound
# every n-th layer looks at everything, the others through a window; the header of these does not say
_WINDOW_PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: `kind` is ggml's number of its type."""

    name: str
    kind: int
    shape: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model decides its footprint. Tuples have one entry a layer."""

    num_layers: int
    layer_bytes: tuple[int, ...]
    layer_repacked_bytes: tuple[int, ...]
    embedding_bytes: int  # the token table; stays on the host
    output_bytes: int  # the last matrix; where it is tied, the table once more on a GPU
    other_bytes: int
    is_tied: bool
    output_repacked_bytes: int
    kv_elements: tuple[tuple[int, int], ...]  # of K and V, per token
    windows: tuple[int, ...]  # tokens a layer looks back; 0: all
    state_bytes: int  # per sequence, whatever its length (recurrent layers)
    vocabulary: int
    step_elements: int  # numbers at work at once, for each token of a step
    trained_context: int

    @property
    def weight_bytes(self) -> int:
        """All tensors of the file."""
        tied = 0 if self.is_tied else self.output_bytes
        return sum(self.layer_bytes) + self.embedding_bytes + tied + self.other_bytes


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How a model shall be loaded, as far as it costs memory."""

    context: int
    kv_tokens: int | None = None
    parallel: int = 8
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    ubatch: int = 512
    mmap: bool = (
        True  # so that repacked weights are there twice: as pages of the file, and as copies
    )
    full_window: bool = True  # layers with a window keep all tokens nevertheless
    projector_bytes: int = 0  # for images, where it takes any

    @property
    def pool_tokens(self) -> int:
        """The KV pool, in tokens."""
        return self.kv_tokens or self.context


def read_shape(
    metadata: Mapping[str, object], lengths: Mapping[str, int], tensors: Iterable[Tensor]
) -> Shape:
    """The facts of a header. What it does not say counts as nothing, so that a guess stays a guess."""
    facts = _Facts(metadata, lengths)
    weights = _Weights(facts.number("block_count"), tensors)
    return Shape(
        num_layers=facts.number("block_count"),
        layer_bytes=tuple(weights.layers),
        layer_repacked_bytes=tuple(weights.layers_repacked),
        embedding_bytes=weights.embedding,
        output_bytes=weights.output or weights.embedding,
        other_bytes=weights.other,
        is_tied=not weights.output,
        output_repacked_bytes=weights.output_repacked,
        kv_elements=tuple(facts.kv_elements()),
        windows=tuple(facts.windows()),
        state_bytes=facts.state_bytes(),
        vocabulary=facts.vocabulary(),
        step_elements=facts.step_elements(),
        trained_context=facts.number("context_length"),
    )


def kv_bytes(shape: Shape, plan: LoadPlan) -> list[int]:
    """The KV cache by layer."""
    size_k, size_v = CACHE_TYPES[plan.cache_type_k], CACHE_TYPES[plan.cache_type_v]
    return [
        round(_cells(window, plan) * (k * size_k + v * size_v))
        for (k, v), window in zip(shape.kv_elements, shape.windows, strict=True)
    ]


def compute_bytes(shape: Shape, plan: LoadPlan) -> int:
    """Scratch memory of the largest step, and the attention mask (one more for windows)."""
    step = plan.ubatch * shape.step_elements * 4
    logits = max(plan.parallel, _LEAST_OUTPUTS) * shape.vocabulary * 4
    masks = 2 if any(shape.windows) else 1
    return max(step, logits) + masks * plan.ubatch * _cells(0, plan) * 2


def output_rows_bytes(shape: Shape, plan: LoadPlan) -> int:
    """The logits that are handed out: one row a sequence."""
    return plan.parallel * shape.vocabulary * 4


def host_bytes(shape: Shape, plan: LoadPlan, gpu_layers: int = 0) -> int:
    """Memory of the process, with the last `gpu_layers` layers (the output is one) elsewhere."""
    stays = max(0, shape.num_layers + 1 - gpu_layers)
    layers = min(stays, shape.num_layers)
    weights = shape.embedding_bytes + shape.other_bytes + sum(shape.layer_bytes[:layers])
    if stays > shape.num_layers and not shape.is_tied:
        weights += shape.output_bytes
    copies = sum(shape.layer_repacked_bytes[:layers]) if plan.mmap else 0
    if plan.mmap and stays > shape.num_layers:
        copies += shape.output_repacked_bytes
    states = shape.state_bytes * plan.parallel * layers // max(1, shape.num_layers)
    vocabulary = shape.vocabulary * VOCABULARY_ENTRY_BYTES + first_use_bytes(shape.vocabulary)
    kv = sum(kv_bytes(shape, plan)[:layers]) + states
    compute = compute_bytes(shape, plan) + output_rows_bytes(shape, plan)
    process = PROCESS_BYTES + (CUDA_PROCESS_BYTES if gpu_layers else plan.projector_bytes)
    return weights + copies + kv + compute + vocabulary + process


def first_use_bytes(vocabulary: int) -> int:
    """Host memory that a worker of so many tokens takes after it was ready, apart from what it computes with."""
    return FIRST_USE_BYTES + vocabulary * GRAMMAR_ENTRY_BYTES


def gpu_bytes(shape: Shape, plan: LoadPlan, gpu_layers: int) -> int:
    """Memory of the last `gpu_layers` layers on one GPU (the output is the last of them)."""
    if gpu_layers <= 0:
        return 0
    first = max(0, shape.num_layers + 1 - gpu_layers)
    weights = sum(shape.layer_bytes[first:]) + shape.output_bytes
    num_layers = shape.num_layers - first
    states = shape.state_bytes * plan.parallel * num_layers // max(1, shape.num_layers)
    kv = sum(kv_bytes(shape, plan)[first:]) + states
    compute = compute_bytes(shape, plan) + plan.projector_bytes
    return weights + kv + compute + CUDA_DEVICE_BYTES


def projector_bytes(
    metadata: Mapping[str, object], tensors: Iterable[Tensor], image_tokens: int | None = None
) -> int:
    """What the encoder of images in an `mmproj` file takes: weights, scratch memory for one image, and
    the embeddings that it keeps. Scratch was right to 15 % for three kinds of encoders."""

    def number(key: str, default: int = 0) -> int:
        value = metadata.get(f"clip.vision.{key}", default)
        return value if isinstance(value, int) else default

    patch, merge = max(1, number("patch_size", 14)), max(1, number("spatial_merge_size", 1))
    tokens = (image_tokens or _IMAGE_TOKENS) if "clip.vision.spatial_merge_size" in metadata else 0
    patches = max((number("image_size") // patch) ** 2, tokens * merge**2)
    wide = number("feed_forward_length") + 3 * number("embedding_length") + 3 * patch**2
    weights = sum(tensor.num_bytes for tensor in tensors)
    return weights + 4 * patches * wide + _KEPT_IMAGES_BYTES


def _cells(window: int, plan: LoadPlan) -> int:
    """Tokens a layer keeps; one with a window keeps that much for every sequence."""
    cells = plan.pool_tokens
    if window and not plan.full_window:
        cells = min(cells, window * plan.parallel + plan.ubatch)
    return -(-cells // _KV_PADDING) * _KV_PADDING


class _Weights:
    """A file's tensors, added up by where llama.cpp puts them."""

    def __init__(self, num_layers: int, tensors: Iterable[Tensor]) -> None:
        self.layers = [0] * num_layers
        self.layers_repacked = [0] * num_layers
        self.embedding = self.output = self.other = self.output_repacked = 0
        for tensor in tensors:
            self._add(tensor)

    def _add(self, tensor: Tensor) -> None:
        match = _BLOCK.match(tensor.name)
        copied = tensor.num_bytes if _is_repacked(tensor) else 0
        if match and int(match[1]) < len(self.layers):
            self.layers[int(match[1])] += tensor.num_bytes
            self.layers_repacked[int(match[1])] += copied
        elif tensor.name == "token_embd.weight":
            self.embedding += tensor.num_bytes
        elif tensor.name == "output.weight":
            self.output += tensor.num_bytes
            self.output_repacked += copied
        else:
            self.other += tensor.num_bytes


def _is_repacked(tensor: Tensor) -> bool:
    return tensor.kind in _REPACKED and len(tensor.shape) >= 2 and tensor.shape[1] % 8 == 0


class _Facts:
    """A header's metadata, asked by the short names of its architecture."""

    def __init__(self, metadata: Mapping[str, object], lengths: Mapping[str, int]) -> None:
        self._metadata = metadata
        self._lengths = lengths
        self.architecture = str(metadata.get("general.architecture", ""))

    def get(self, key: str) -> object:
        return self._metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str, default: int = 0) -> int:
        """A number; of a list with one entry a layer the largest."""
        value = self.get(key)
        numbers = value if isinstance(value, tuple) else (value,)
        return max((int(n) for n in numbers if isinstance(n, int | float)), default=default)

    def by_layer(self, key: str, default: int) -> list[int]:
        """One number a layer, said as one for all or as a list."""
        value, count = self.get(key), self.number("block_count")
        if isinstance(value, tuple) and len(value) >= count:
            return [int(n) for n in value[:count]]
        return [self.number(key, default)] * count

    def vocabulary(self) -> int:
        tokens = self._metadata.get("tokenizer.ggml.tokens", ())
        listed = len(tokens) if isinstance(tokens, tuple) else 0
        return self._lengths.get("tokenizer.ggml.tokens", listed) or self.number("vocab_size")

    def step_elements(self) -> int:
        """Of the widest step, the feed-forward one; a mixture computes all experts it uses."""
        embedding, used = self.number("embedding_length"), self.number("expert_used_count")
        experts = used * (embedding + self.number("expert_feed_forward_length"))
        return max(3 * self.number("feed_forward_length") + 4 * embedding, 2 * experts)

    def windows(self) -> list[int]:
        count, window = self.number("block_count"), self.number("attention.sliding_window")
        pattern = self.get("attention.sliding_window_pattern")
        if isinstance(pattern, tuple) and len(pattern) >= count:
            return [window if has_window else 0 for has_window in pattern[:count]]
        period = pattern if isinstance(pattern, int) else _WINDOW_PERIODS.get(self.architecture, 0)
        return [window if period and layer % period < period - 1 else 0 for layer in range(count)]

    def kv_elements(self) -> list[tuple[int, int]]:
        """Elements of K and V a token and layer; layers without attention have none."""
        if self.get("attention.causal") is False:
            return [(0, 0)] * self.number("block_count")
        heads = self.number("attention.head_count")
        if not heads:
            return [(0, 0)] * self.number("block_count")
        size = self.number("embedding_length") // heads
        k = self.number("attention.key_length", size)
        v = self.number("attention.value_length", size)
        if self.get("attention.key_length_mla"):
            v = 0  # compressed attention keeps one vector for both
        by_layer = self.by_layer("attention.head_count_kv", heads)
        return [(n * k, n * v) if self._attends(i) else (0, 0) for i, n in enumerate(by_layer)]

    def _attends(self, layer: int) -> bool:
        interval = self.number("full_attention_interval")
        return not interval or (layer + 1) % interval == 0

    def state_bytes(self) -> int:
        """What recurrent layers keep of one sequence."""
        inner, state = self.number("ssm.inner_size"), self.number("ssm.state_size")
        width = inner + 2 * self.number("ssm.group_count") * state
        row = max(0, self.number("ssm.conv_kernel") - 1) * width + inner * state
        layers = sum(k == 0 for k, _ in self.kv_elements())
        return row * 4 * layers
