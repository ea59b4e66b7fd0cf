"""From a checkpoint's tensors to a decoder's: what is fused or stacked on the way.

An architecture names, for each of the decoder's modules, the modules in the checkpoint that it is made
of. Names are relative: within a layer to that layer, elsewhere to the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from backends.paged.checkpoint import Checkpoint, some
from backends.paged.decoder import Decoder
from backends.paged.spec import ModelSpec
from backends.serving.engine import EngineError

FLOATS = ("BF16", "F16", "F32", "F64")
Shape = tuple[int, ...]
Read = Callable[[str], Tensor]

LAYER = re.compile(r"layers\.\d+\.")
EMBEDDING = "embed_tokens.weight"
HEAD = "lm_head.weight"
# GPTQ's and AWQ's, compressed-tensors', FP8's and bitsandbytes', where config.json does not tell.
QUANTISED = re.compile(r"\.(qweight|qzeros|scales|weight_packed|weight_scale(_inv)?|absmax|SCB)$")
SAMPLED_ROWS = 8  # which are compared: heads that were trained differ in all
NEVER_WEIGHTS = r"rotary_emb\.inv_freq$"  # old checkpoints keep what follows from config.json


class Wanted(NamedTuple):
    """What a tensor in the checkpoint must be like."""

    shape: Shape
    dtypes: Sequence[str] = FLOATS


class Source(Protocol):
    """What one of the decoder's tensors is made of. `parts` are the heights of what was fused into it."""

    def expects(self, shape: Shape, parts: Sequence[int]) -> Mapping[str, Wanted]:
        """The checkpoint's tensors that make a target of this shape."""
        ...

    def fill(self, target: Tensor, parts: Sequence[int], read: Read) -> None:
        """Write the target's values."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Tensors laid one below the other, one for each part, or a single one that holds all."""

    names: Sequence[str]

    def expects(self, shape: Shape, parts: Sequence[int]) -> Mapping[str, Wanted]:
        heights = self._heights(shape[0], parts)
        return {
            name: Wanted((height, *shape[1:]))
            for name, height in zip(self.names, heights, strict=True)
        }

    def fill(self, target: Tensor, parts: Sequence[int], read: Read) -> None:
        pieces = torch.split(target, self._heights(target.shape[0], parts))
        for piece, name in zip(pieces, self.names, strict=True):
            piece.copy_(read(name))

    def _heights(self, height: int, parts: Sequence[int]) -> list[int]:
        return [height] if len(self.names) == 1 else list(parts)


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Rows of queries, keys and values, where rotation pairs neighbours: queries and keys are put in the
    order in which it pairs halves. `rotated` are the first of each head's `head_dim` rows."""

    names: Sequence[str]
    head_dim: int
    rotated: int

    def expects(self, shape: Shape, parts: Sequence[int]) -> Mapping[str, Wanted]:
        return Rows(self.names).expects(shape, parts)

    def fill(self, target: Tensor, parts: Sequence[int], read: Read) -> None:
        pairs, rest = range(0, self.rotated, 2), range(self.rotated, self.head_dim)
        order = torch.tensor([*pairs, *(i + 1 for i in pairs), *rest])
        queries, keys, values = torch.split(target, list(parts))
        for piece, name in zip((queries, keys), self.names, strict=False):
            rows = read(name)
            heads = rows.view(-1, self.head_dim, *rows.shape[1:])
            piece.copy_(heads[:, order].view(rows.shape))
        values.copy_(read(self.names[2]))


@dataclass(frozen=True, slots=True)
class Stack:
    """Such rows for each expert."""

    names: Sequence[str]

    def expects(self, shape: Shape, parts: Sequence[int]) -> Mapping[str, Wanted]:
        expected: dict[str, Wanted] = {}
        for expert in range(shape[0]):
            expected |= self._of(expert).expects(shape[1:], parts)
        return expected

    def fill(self, target: Tensor, parts: Sequence[int], read: Read) -> None:
        for expert, plane in enumerate(target):
            self._of(expert).fill(plane, parts, read)

    def _of(self, expert: int) -> Rows:
        return Rows([name.format(e=expert) for name in self.names])


@dataclass(frozen=True, slots=True)
class Names:
    """What the decoder's tensors are called in a checkpoint of some architecture.

    `modules`: by the decoder's module (`attention.qkv`), modules to lay one below the other; `{e}` stands
    for an expert's number. `sources`: by the decoder's tensor (`attention.sinks`), what else it is made of.
    `ignored`: patterns of names that may be left over.
    """

    modules: Mapping[str, Sequence[str]]
    sources: Mapping[str, Source] = field(default_factory=dict)
    ignored: Sequence[str] = ()

    def source(self, tensor: str) -> Source:
        if tensor in self.sources:
            return self.sources[tensor]
        module, _, leaf = tensor.rpartition(".")
        names = [f"{name}.{leaf}" for name in self.modules[module]]
        return Stack(names) if "{e}" in names[0] else Rows(names)


@dataclass(frozen=True, slots=True)
class Job:
    """One tensor of the decoder and how it is filled."""

    name: str
    prefix: str  # of the source's names in the checkpoint
    source: Source
    parts: Sequence[int]

    def expects(self, shape: Shape) -> Mapping[str, Wanted]:
        expected = self.source.expects(shape, self.parts)
        return {self.prefix + name: wanted for name, wanted in expected.items()}

    def fill(self, target: Tensor, checkpoint: Checkpoint) -> None:
        self.source.fill(target, self.parts, lambda name: checkpoint.read(self.prefix + name))


def with_its_head(spec: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    """The spec, but for config.json's word that the head is the embedding, where the checkpoint has another
    head. Many files have the same one twice, and some wrappers of models that see are tied by default."""
    heads, embeddings = _named(HEAD, checkpoint), _named(EMBEDDING, checkpoint)
    if not spec.is_tied or len(heads) != 1 or len(embeddings) != 1:
        return spec
    if checkpoint.layout(heads[0]) == checkpoint.layout(embeddings[0]):
        head, embedding = checkpoint.read(heads[0]), checkpoint.read(embeddings[0])
        every = max(1, len(head) // SAMPLED_ROWS)
        if torch.equal(head[::every], embedding[::every]):
            return spec
    return replace(spec, is_tied=False)


def plan(decoder: Decoder, checkpoint: Checkpoint, names: Names) -> list[Job]:
    """How to fill `decoder`, which may hold no memory yet.

    Raises EngineError unless the checkpoint has every tensor needed, in the right shape, and none whose
    meaning is unknown.
    """
    jobs = list(_jobs(decoder, checkpoint, names))
    shapes = {name: tuple(tensor.shape) for name, tensor in decoder.named_parameters()}
    expected: dict[str, Wanted] = {}
    for job in jobs:
        expected |= job.expects(shapes[job.name])
    left_over = checkpoint.names - expected.keys()
    if codes := {name for name in left_over if QUANTISED.search(name)}:
        reason = f"the checkpoint's weights are quantised, which is not supported: {some(codes)}"
        raise EngineError("unsupported", reason)
    if absent := expected.keys() - checkpoint.names:
        raise EngineError("bad_file", f"the checkpoint lacks {some(absent)}")
    for name, wanted in expected.items():
        _check(name, wanted, *checkpoint.layout(name))
    tied = (re.escape(HEAD),) if decoder.spec.is_tied else ()
    ignored = re.compile("|".join((NEVER_WEIGHTS, *tied, *names.ignored)))
    if unknown := {name for name in left_over if not ignored.search(name)}:
        reason = (
            f"the checkpoint has weights that {decoder.spec.architecture} does not: {some(unknown)}"
        )
        raise EngineError("unsupported", reason)
    return jobs


def _check(name: str, wanted: Wanted, shape: Shape, dtype: str) -> None:
    if shape != wanted.shape:
        found = f"{list(shape)} in the checkpoint, and config.json makes it {list(wanted.shape)}"
    elif dtype not in wanted.dtypes:
        found = f"of type {dtype} in the checkpoint, not {' or '.join(wanted.dtypes)}"
    else:
        return
    raise EngineError("bad_file", f"{name} is {found}")


def fill(
    decoder: Decoder, checkpoint: Checkpoint, jobs: Sequence[Job], progress: Callable[[float], None]
) -> None:
    """Write all tensors of a decoder that has been placed. `progress` is called with the share done."""
    decoder.fill_constants()
    tensors = dict(decoder.named_parameters())
    total, done = sum(tensor.nbytes for tensor in tensors.values()), 0
    for job in jobs:
        job.fill(tensors[job.name], checkpoint)
        done += tensors[job.name].nbytes
        progress(done / total)


def _jobs(decoder: Decoder, checkpoint: Checkpoint, names: Names) -> Iterator[Job]:
    body = _before(EMBEDDING, checkpoint)
    for name, _ in decoder.named_parameters():
        layer = LAYER.match(name)
        number, within = (layer[0], name[layer.end() :]) if layer else ("", name)
        prefix = _before(HEAD, checkpoint) if name == "head.weight" else body + number
        parts = getattr(decoder.get_submodule(name.rpartition(".")[0]), "parts", ())
        yield Job(name, prefix, names.source(within), parts)


def _before(last: str, checkpoint: Checkpoint) -> str:
    """What stands before a name that every checkpoint has; it differs by what was saved with the model."""
    found = _named(last, checkpoint)
    if len(found) != 1:
        what = f"{len(found)} tensors named {last}" if found else f"no {last}"
        raise EngineError("bad_file", f"the checkpoint has {what}")
    return found[0].removesuffix(last)


def _named(last: str, checkpoint: Checkpoint) -> list[str]:
    return [name for name in checkpoint.names if name == last or name.endswith("." + last)]
