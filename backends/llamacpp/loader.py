"""From an options file to a loaded model: parameters, progress, and failures in one clear sentence."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backends.llamacpp import gguf_file
from backends.llamacpp.binding import L, log
from backends.llamacpp.devices import gpu_devices, pointers_to
from backends.llamacpp.failures import classified
from backends.llamacpp.options import Options
from backends.llamacpp.vocabulary import metadata
from backends.serving.engine import EngineError

POOLING_NONE, POOLING_LAST, POOLING_RANK = 0, 3, 4
MIN_OUTPUTS = 16  # rows of logits a step may have, where fewer run: prompts are scored by so many

MAX_LOGITS_BYTES = 512 << 20
LAST_BATCH = 128  # tokens a run, where a sequence pooled at its last token may come in several


@dataclass(slots=True)
class Loaded:
    """A model in memory. Its pointer is freed by whoever owns the context made from it."""

    pointer: Any
    options: Options
    trained_context: int
    pooling: int
    keep: list[Any] = field(default_factory=list)  # what C still points to

    @property
    def context(self) -> int:
        """The longest request; also what kv_tokens allow."""
        context = self.options.context or self.trained_context or 2048
        return min(context, self.options.kv_tokens or context)

    @property
    def is_causal(self) -> bool:
        architecture = metadata(self.pointer, "general.architecture")
        return metadata(self.pointer, f"{architecture}.attention.causal") != "false"

    @property
    def kind(self) -> str:
        """`generate`, or `embed` for a model whose header says how its output is pooled."""
        return "embed" if self.pooling != POOLING_NONE or not self.is_causal else "generate"

    @property
    def can_cut(self) -> bool:
        """Whether the memory of past tokens can be cut anywhere; recurrent layers cannot."""
        model = self.pointer
        return not (L.llama_model_is_recurrent(model) or L.llama_model_is_hybrid(model))


def load(options: Options, progress: Callable[[float], None]) -> Loaded:
    """Read the model; raises EngineError with a contract kind."""
    gguf_file.check(options.path)
    log.install()
    lines = log.record()
    L.llama_backend_init()
    params, keep = _model_params(options, progress)
    pointer = L.llama_model_load_from_file(os.fsencode(options.path), params)
    log.stop()
    if not pointer:
        raise classified(options.path, lines)
    pooling = _pooling(pointer)
    return Loaded(pointer, options, L.llama_model_n_ctx_train(pointer), pooling, keep)


def open_context(loaded: Loaded, params: Any) -> Any:
    """A context of `loaded` by `params`; raises EngineError."""
    lines = log.record()
    pointer = L.llama_init_from_model(loaded.pointer, params)
    log.stop()
    if not pointer:
        raise classified(loaded.options.path, lines)
    _attach_adapters(loaded, pointer)
    return pointer


def generation_params(loaded: Loaded) -> Any:
    """Context parameters for generating: one KV pool for all sequences, few rows of logits."""
    options = loaded.options
    params = _common_params(options)
    params.n_ctx = max(options.kv_tokens or loaded.context, loaded.context)
    params.n_batch = options.batch or (2048 if is_offloading(options) else 512)
    params.n_batch = max(params.n_batch, 2 * options.parallel)
    params.n_ubatch = min(options.ubatch or 512, params.n_batch)
    params.n_seq_max = options.parallel if loaded.can_cut else 2 * options.parallel
    params.n_outputs_max = max(params.n_seq_max, MIN_OUTPUTS)
    params.type_k, params.type_v = options.cache_type_k, options.cache_type_v
    params.kv_unified = True
    return params


def embedding_params(loaded: Loaded, pooling: int) -> Any:
    """Context parameters for embeddings: a whole sequence in one micro-batch where it has to be.

    A causal model's head is computed for every token of such a batch, wanted or not, and its logits kept
    twice, so the batch is no larger than `MAX_LOGITS_BYTES` allow.
    """
    options = loaded.options
    params = _common_params(options)
    batch = loaded.context
    if loaded.is_causal:
        num_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(loaded.pointer))
        rows = max(512, MAX_LOGITS_BYTES // (4 * num_vocab))
        batch = min(batch, LAST_BATCH if pooling in (POOLING_LAST, POOLING_RANK) else rows)
    params.n_ctx = loaded.context
    params.n_batch = params.n_ubatch = max(batch, options.parallel)
    params.n_seq_max = options.parallel
    params.embeddings = True
    params.pooling_type = pooling
    params.kv_unified = True
    return params


def kept_tokens(loaded: Loaded, pool: int) -> int | None:
    """Tokens of finished sequences that may be kept in host memory beside a pool of so many cells: as
    many again. None: in the pool itself, where a GPU has it, which would have to send them out and back."""
    return None if is_offloading(loaded.options) else pool


def is_offloading(options: Options) -> bool:
    return options.gpu_layers != 0 and bool(gpu_devices())


def has_broken_amx(system_info: str, cpu_info: str) -> bool:
    """Whether llama.cpp would use AMX kernels on this CPU.

    Compiled by GCC 12 they crash in the first step of a quantised model: the compiler drops the stores
    that fill the tile configuration. No build says by which compiler it was made, so none is trusted.
    """
    return "AMX_INT8 = 1" in system_info and re.search(r"\bamx_int8\b", cpu_info) is not None


def uses_extra_buffers(repack: int) -> bool:
    """Whether weights may be rearranged for the CPU's best kernels, AMX's among them."""
    if repack >= 0:
        return bool(repack)
    broken = has_broken_amx(L.llama_print_system_info().decode(), cpu_flags())
    if broken:
        print(
            "AMX kernels may be miscompiled: repacking is off (repack: on insists)", file=sys.stderr
        )
    return not broken


def cpu_flags() -> str:
    """What Linux says of the first CPU; nothing elsewhere, where llama.cpp uses no AMX."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return file.read(8192)
    except OSError:
        return ""


def _pooling(model: Any) -> int:
    architecture = metadata(model, "general.architecture")
    return int(metadata(model, f"{architecture}.pooling_type") or POOLING_NONE)


def _model_params(options: Options, progress: Callable[[float], None]) -> tuple[Any, list[Any]]:
    """llama_model_params, and what must live as long as they are used."""

    def report(share: float, _: object) -> bool:
        progress(share)
        return True

    params = L.llama_model_default_params()
    callback = L.llama_progress_callback(report)
    keep: list[Any] = [callback]
    params.progress_callback = callback
    params.n_gpu_layers = options.gpu_layers
    params.main_gpu = options.main_gpu
    params.load_mode = (2 if options.mlock else 0) + (1 if options.mmap else 0)
    params.use_extra_bufts = uses_extra_buffers(options.repack)
    if options.devices:
        array = pointers_to(options.devices)
        params.devices = ctypes.addressof(array)
        keep.append(array)
    if options.tensor_split:
        split = (ctypes.c_float * L.LLAMA_MAX_DEVICES)(*options.tensor_split)
        params.tensor_split = ctypes.cast(split, ctypes.POINTER(ctypes.c_float))
        keep.append(split)
    return params, keep


def _common_params(options: Options) -> Any:
    params = L.llama_context_default_params()
    params.n_threads = params.n_threads_batch = options.threads
    params.flash_attn_type = options.flash_attention
    if options.rope_scaling is not None:
        params.rope_scaling_type = options.rope_scaling
    params.rope_freq_base = options.rope_freq_base
    params.rope_freq_scale = options.rope_freq_scale
    params.no_perf = True
    return params


def _attach_adapters(loaded: Loaded, context: Any) -> None:
    adapters = []
    for path, _ in loaded.options.lora:
        adapter = L.llama_adapter_lora_init(loaded.pointer, os.fsencode(path))
        if not adapter:
            name = os.path.basename(path)
            raise EngineError(
                "bad_file", f"The LoRA adapter {name} cannot be loaded for this model"
            )
        adapters.append(adapter)
    if adapters:
        array = (ctypes.POINTER(ctypes.c_void_p) * len(adapters))(*adapters)
        scales = (ctypes.c_float * len(adapters))(*(scale for _, scale in loaded.options.lora))
        L.llama_set_adapters_lora(context, array, len(adapters), scales)
