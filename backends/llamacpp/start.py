"""Puts an engine together: options, model, contexts."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backends.llamacpp import loader, options, ranking
from backends.llamacpp.binding import L
from backends.llamacpp.devices import DeviceMeter
from backends.llamacpp.loader import POOLING_NONE, POOLING_RANK, Loaded
from backends.llamacpp.options import POOLINGS
from backends.llamacpp.vocabulary import Vocabulary
from backends.serving.engine import EngineError, ModelInfo

if TYPE_CHECKING:
    from backends.llamacpp.context import Context
    from backends.llamacpp.embedder import Embedder
    from backends.llamacpp.engine import LlamaEngine
    from backends.llamacpp.projector import Projector
    from backends.llamacpp.stepper import Stepper

MAX_SLOTS = 256  # llama.cpp's own bound on sequences in one unified KV cache


def load(raw: dict[str, Any], progress: Callable[[float], None]) -> LlamaEngine:
    """A running engine by the contract's options; raises EngineError."""
    parsed = options.parse(raw)
    # numpy and all that needs it are imported while llama.cpp reads the file, which holds no lock.
    imports = threading.Thread(target=importlib.import_module, args=["backends.llamacpp.engine"])
    imports.start()
    try:
        devices = DeviceMeter()
        loaded = loader.load(parsed, progress)
    finally:
        imports.join()
    try:
        return _assemble(loaded, devices)
    except BaseException:
        L.llama_model_free(loaded.pointer)
        raise


def _assemble(loaded: Loaded, devices: DeviceMeter) -> LlamaEngine:
    from backends.llamacpp.engine import LlamaEngine

    _refuse_what_cannot_run(loaded)
    vocabulary = Vocabulary(loaded.pointer)
    projector = _projector(loaded)
    context, stepper = (
        _generator(loaded, vocabulary, projector) if loaded.kind == "generate" else (None, None)
    )
    embedder = _embedder(loaded, vocabulary)
    info = describe(
        loaded,
        vocabulary,
        generates=stepper is not None,
        embeds=embedder is not None,
        sees=projector is not None,
    )
    return LlamaEngine(
        loaded,
        info,
        vocabulary,
        context=context,
        stepper=stepper,
        embedder=embedder,
        projector=projector,
        devices=devices,
    )


def describe(
    loaded: Loaded, vocabulary: Vocabulary, *, generates: bool, embeds: bool, sees: bool
) -> ModelInfo:
    """What the serving layer needs to know of the model."""
    raw = L.llama_model_chat_template(loaded.pointer, None)
    template = raw.decode("utf-8", "replace") if raw else None
    named = vocabulary.named
    capabilities = set()
    if embeds:
        capabilities.add("rerank" if loaded.pooling == POOLING_RANK else "embeddings")
    if generates:
        capabilities.add("completions")
        if named.keys() >= {"fim_prefix", "fim_suffix", "fim_middle"}:
            capabilities.add("infill")
        if template:
            capabilities.add("chat")
        if template and sees:
            capabilities.add("vision")
    return ModelInfo(
        name=loaded.options.model,
        context=loaded.context,
        trained_context=loaded.trained_context,
        vocab_size=vocabulary.size,
        capabilities=frozenset(capabilities),
        chat_template=template,
        bos_token=named.pop("bos_token", ""),
        eos_token=named.pop("eos_token", ""),
        special=named,
        embedding_length=L.llama_model_n_embd_out(loaded.pointer),
    )


def _refuse_what_cannot_run(loaded: Loaded) -> None:
    model = loaded.pointer
    if loaded.pooling == POOLING_RANK:
        ranking.check(model)
    if L.llama_model_has_encoder(model) and L.llama_model_has_decoder(model):
        raise EngineError("unsupported", "Encoder-decoder models are not supported")
    if L.llama_model_is_diffusion(model):
        raise EngineError("unsupported", "Diffusion models are not supported")
    if not loaded.is_causal and (loaded.options.context or 0) > loaded.trained_context:
        raise EngineError(
            "bad_options", f"context: this model takes {loaded.trained_context} at most"
        )
    if not loaded.options.context and not loaded.trained_context:
        raise EngineError("bad_options", "context: the model does not say what it was trained for")


def _projector(loaded: Loaded) -> Projector | None:
    path = loaded.options.mmproj
    if path is None:
        return None
    if loaded.kind != "generate":
        raise EngineError(
            "bad_options", "mmproj: a model that only makes embeddings takes no images"
        )
    from backends.llamacpp.projector import open_projector

    return open_projector(loaded, path)


def _generator(
    loaded: Loaded, vocabulary: Vocabulary, projector: Projector | None
) -> tuple[Context, Stepper]:
    from backends.llamacpp.context import Context
    from backends.llamacpp.pace import Pace
    from backends.llamacpp.scheduler import Scheduler
    from backends.llamacpp.stepper import Stepper

    params = loader.generation_params(loaded)
    pointer = loader.open_context(loaded, params)
    context = Context(pointer, vocabulary.size, can_cut=loaded.can_cut, projector=projector)
    largest = L.llama_n_batch(context.pointer)
    is_fixed = loaded.options.batch is not None or loader.is_offloading(loaded.options)
    pace = Pace(largest if is_fixed else max(64, 2 * loaded.options.parallel), largest)
    pool = L.llama_n_ctx(context.pointer)
    scheduler = Scheduler(
        context,
        pool=pool,
        max_running=loaded.options.parallel,
        max_slots=MAX_SLOTS if loaded.can_cut else params.n_seq_max,
        budget=largest,
        max_outputs=params.n_outputs_max,
        can_cut=loaded.can_cut,
        keep=loader.kept_tokens(loaded, pool),
    )
    return context, Stepper(context, scheduler, vocabulary, pace)


def _embedder(loaded: Loaded, vocabulary: Vocabulary) -> Embedder | None:
    """Embeddings as the model's header pools them, or as the options ask; None where neither does."""
    from backends.llamacpp.embedder import Embedder

    asked = loaded.options.pooling
    pooling = loaded.pooling if asked is None else asked
    if pooling == POOLING_NONE:
        if loaded.kind == "generate":
            return None
        pooling = POOLINGS["mean"]
    params = loader.embedding_params(loaded, pooling)
    pointer = loader.open_context(loaded, params)
    ranks = pooling == POOLING_RANK
    in_parts = loaded.is_causal and (ranks or pooling == POOLINGS["last"])
    model = loaded.pointer
    return Embedder(
        pointer,
        L.llama_model_n_cls_out(model) if ranks else L.llama_model_n_embd_out(model),
        vocabulary.size,
        slots=params.n_seq_max,
        max_input=loaded.context if in_parts else min(loaded.context, params.n_batch),
        ranks=ranks,
    )
