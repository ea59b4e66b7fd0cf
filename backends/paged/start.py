"""Puts an engine together: options, model, tokenizer, memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, cast

import torch

from backends.paged import architectures, loader, options
from backends.paged.arena import Arena, DeviceMeter, cache_shape, host_buffer
from backends.paged.batch import KvCache
from backends.paged.block_manager import BlockManager
from backends.paged.chooser import Chooser
from backends.paged.decoder import Decoder
from backends.paged.device import lacks_memory, unsuited
from backends.paged.engine import PagedEngine
from backends.paged.files import read_json
from backends.paged.options import Options
from backends.paged.runner import Runner
from backends.paged.scheduler import Scheduler
from backends.paged.sequence import BLOCK_SIZE, cdiv
from backends.paged.stepper import Pooling, Stepper
from backends.paged.tokenizer import ChatFiles, read_pooling, read_tokenizer
from backends.serving.engine import EngineError, ModelInfo

BYTES_PER_THREAD = 32 << 20  # of weights; measured with 10 MB (one thread) and 440 MB (all)
NO_COMPILER = "On a GPU this engine needs a C compiler, gcc or clang, and Python's headers; its log says more."
WIDEST_HEAD = 256  # that fits a multiprocessor
BUDGET_CPU, BUDGET_GPU = 512, 2048  # tokens of a step; more makes those who decode wait longer


def load(raw: dict[str, Any], progress: Callable[[float], None]) -> PagedEngine:
    """A running engine by the contract's options; raises EngineError."""
    try:
        return _load(options.parse(raw), progress)
    except (RuntimeError, CalledProcessError) as error:
        if lacks_memory(error):
            reason = "There is not enough memory for the model."
            raise EngineError("out_of_memory", reason) from error
        if isinstance(error, CalledProcessError) or "C compiler" in str(error):
            raise EngineError("unsupported", NO_COMPILER) from error
        raise


def _load(parsed: Options, progress: Callable[[float], None]) -> PagedEngine:
    device = choose_device(parsed.devices)
    if device.type == "cuda":  # or what asks for no device makes a context on the first one
        torch.cuda.set_device(device)
    meter = DeviceMeter(device)
    folder = Path(parsed.path)
    config = read_json(parsed.path, "config.json")
    # What is not served is refused by name, before seconds go into reading a vocabulary.
    described, _ = architectures.describe(config)
    check_heads(described.head_dim, device)
    files = ChatFiles(folder)
    tokenizer = read_tokenizer(folder, config, files)
    dtype = loader.choose_dtype(parsed.dtype, config, device)
    image: list[torch.Tensor] = []

    def allocate(num_bytes: int) -> torch.Tensor:
        image.append(host_buffer(num_bytes, device))
        return image[0]

    spec, decoder = loader.load(
        parsed.path, dtype, "cpu", progress, context=parsed.context, allocate=allocate
    )
    num_blocks = count_blocks(parsed, decoder)
    context = min(parsed.context or spec.max_context, num_blocks * BLOCK_SIZE)
    arena = Arena(decoder, image[0], num_blocks, device)
    pooling = parsed.pooling or read_pooling(folder) or "none"
    info = describe(parsed, decoder, files, context, embeds=pooling != "none")
    stepper = Stepper(
        Scheduler(
            BlockManager(num_blocks),
            budget=max(parsed.batch or _budget(device), parsed.parallel),
            max_running=parsed.parallel,
        ),
        Runner(decoder, device, max_running=parsed.parallel, context=context),
        Chooser(spec.vocab_size, device),
        tokenizer.ends,
        overlaps=device.type != "cpu",  # where nothing waits for the host, it would only cost
    )
    engine = PagedEngine(
        info,
        tokenizer,
        stepper,
        arena,
        meter,
        pooling=None if pooling == "none" else cast(Pooling, pooling),
        most_threads=useful_threads(decoder.num_bytes, device),
    )
    engine.set_threads(parsed.threads)
    if device.type != "cpu":
        engine.warm_up()  # a first request that waits for a compiler would wait seconds
    return engine


def useful_threads(num_bytes: int, device: torch.device) -> int:
    """More threads than this make a model of that size slower: what they wait for each other at the end
    of every operation is then longer than the operation."""
    return max(1, num_bytes // BYTES_PER_THREAD) if device.type == "cpu" else 1


def choose_device(devices: tuple[str, ...] | None) -> torch.device:
    """Where to compute; raises EngineError for a device that is not there, or that runs no kernel of ours."""
    if devices is None:
        return _checked("cuda:0") if torch.cuda.is_available() else torch.device("cpu")
    names = [name for name in devices if name != "cpu"]
    if not names:
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if len(names) > 1:
        raise EngineError("unsupported", "devices: this engine computes on one GPU")
    if names[0] not in {f"cuda:{index}" for index in range(count)}:
        have = f"{count} GPUs" if count else "no GPU"
        raise EngineError("bad_options", f"devices: {names[0]!r} is not there; torch sees {have}")
    return _checked(names[0])


def _checked(name: str) -> torch.device:
    device = torch.device(name)
    reason = unsuited(torch.cuda.get_device_properties(device))
    if reason is not None:
        raise EngineError("unsupported", f"devices: {name} is {reason}; [] computes on the CPU")
    return device


def check_heads(head_dim: int, device: torch.device) -> None:
    """Raises EngineError where no kernel has a shape for heads of so many dimensions."""
    if device.type == "cuda" and head_dim > WIDEST_HEAD:
        reason = f"heads of {head_dim} dimensions; on a GPU this engine serves up to {WIDEST_HEAD}"
        raise EngineError("unsupported", reason)


def count_blocks(parsed: Options, decoder: Decoder) -> int:
    """The KV cache's size; raises EngineError where that is no block."""
    if parsed.kv_bytes is None:
        tokens = parsed.kv_tokens or parsed.context or decoder.spec.max_context
        return cdiv(tokens, BLOCK_SIZE)
    per_block = KvCache.bytes_per_block(*cache_shape(decoder))
    if parsed.kv_bytes < per_block:
        raise EngineError("bad_options", f"kv_bytes: one block takes {per_block} bytes")
    return parsed.kv_bytes // per_block


def describe(
    parsed: Options, decoder: Decoder, files: ChatFiles, context: int, *, embeds: bool
) -> ModelInfo:
    """What the serving layer needs to know of the model."""
    template, named = files.template, files.named
    capabilities = {"completions"} | ({"chat"} if template else set())
    return ModelInfo(
        name=parsed.model,
        context=context,
        trained_context=decoder.spec.max_context,
        vocab_size=decoder.spec.vocab_size,
        capabilities=frozenset(capabilities | ({"embeddings"} if embeds else set())),
        chat_template=template,
        bos_token=named.pop("bos_token", ""),
        eos_token=named.pop("eos_token", ""),
        special=named,
        embedding_length=decoder.spec.hidden_size,
    )


def _budget(device: torch.device) -> int:
    return BUDGET_CPU if device.type == "cpu" else BUDGET_GPU
