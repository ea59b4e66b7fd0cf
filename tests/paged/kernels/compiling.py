"""Kernels compiled for a card that need not be here: what the interpreter forgives fails, and registers,
spills and the kind of instructions are read from what would run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch")
triton = pytest.importorskip("triton", reason="needs triton")
if os.environ.get("TRITON_INTERPRET", "0") not in ("0", ""):
    pytest.skip("Triton interprets in this process", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from backends.paged.attention import kernel  # noqa: E402
from backends.paged.kernels import fused  # noqa: E402
from tests.paged.kernels.cards import CARDS, Card  # noqa: E402

BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
needs_compiler = pytest.mark.skipif(
    not (BIN / "ptxas").exists() or not (BIN / "cuobjdump").exists(),
    reason="this build of triton has no ptxas or no cuobjdump",
)
REGISTERS = 65536  # of one multiprocessor
RESERVED = 1024  # bytes of shared memory that every program takes beside its own
FEW = (
    16  # bytes of a thread that the compiler may spill to fit one program more on a multiprocessor
)
PRODUCTS = {9: "wgmma.mma_async", 10: "tcgen05.mma"}  # of tall tiles, by generation; else mma.sync


@dataclass(frozen=True)
class Compiled:
    card: Card
    ptx: str
    registers: int
    stack: int  # bytes; spilled values stand there
    local: int
    shared: int
    num_warps: int

    @property
    def programs(self) -> int:
        """That one multiprocessor runs at once, by registers and shared memory."""
        by_registers = REGISTERS // (self.registers * 32 * self.num_warps)
        room = self.card.gpu.shared_memory + RESERVED
        return min(by_registers, room // (self.shared + RESERVED))

    @property
    def waits(self) -> set[int]:
        """Copies that are still under way when the oldest is waited for."""
        return {int(n) for n in re.findall(r"cp\.async\.wait_group\s+(\d+)", self.ptx)}

    @property
    def products(self) -> set[str]:
        """The kinds of matrix instructions."""
        return set(re.findall(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b", self.ptx))

    def check(self) -> None:
        """What is true of every kernel on every card."""
        assert self.local == 0
        assert self.stack <= FEW, "values are spilled"
        assert self.programs >= 1


def compiled(
    function: Any,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    tmp_path: Path,
    num_warps: int,
    num_stages: int = 3,
    unaligned: Sequence[str] = (),
    card: Card = CARDS["H200"],
) -> Compiled:
    """`types` of arguments; the others are strides. All are multiples of 16 but those `unaligned`."""
    names = function.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    aligned = [i for i, n in enumerate(names) if n not in constants and n not in unaligned]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned if signature[names[i]] != "fp32"}
    made = triton.compile(
        ASTSource(function, signature, dict(constants), attributes),
        target=GPUTarget("cuda", card.capability, 32),
        options={"num_warps": num_warps, "num_stages": num_stages},
    )
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    report = subprocess.run(
        [BIN / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True
    ).stdout
    usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    return Compiled(
        card,
        made.asm["ptx"],
        usage["REG"],
        usage["STACK"],
        usage["LOCAL"],
        made.metadata.shared,
        num_warps,
    )


def attention(
    tmp_path: Path,
    dtype: str,
    dim: int,
    group: int,
    is_decode: bool,
    is_split: bool = False,
    features: bool = False,
    card: Card = CARDS["H200"],
) -> Compiled:
    itemsize = 4 if dtype == "fp32" else 2
    shaped = kernel.decode_shape if is_decode else kernel.prefill_shape
    shape = shaped(group, dim, itemsize, card.gpu)
    values = dict.fromkeys(("q", "k_cache", "v_cache", "out", "sinks"), f"*{dtype}")
    parts = dict.fromkeys(("parts", "sums"), "*fp32" if is_split else f"*{dtype}")
    metadata = dict.fromkeys(("query_starts", "context_lengths", "block_tables"), "*i32")
    constants = {
        "GROUP": group,
        "DIM": dim,
        "WIDTH": triton.next_power_of_2(dim),
        "BLOCK_SIZE": 16,
        "ROWS": shape.rows,
        "TILE": shape.tile,
        "IS_DECODE": is_decode,
        "IS_SPLIT": is_split,
        "HAS_WINDOW": features,
        "HAS_SOFTCAP": features,
        "HAS_SINKS": features,
        "UPCAST": False,
    }
    return compiled(
        kernel._attend,
        values | parts | metadata | {"scale": "fp32", "softcap": "fp32"},
        constants,
        tmp_path,
        shape.num_warps,
        shape.num_stages,
        unaligned=("num_sequences", "window", "table_stride"),
        card=card,
    )


def check_attention(made: Compiled, dtype: str, dim: int, is_decode: bool) -> None:
    """What is true of attention on every card, for heads of up to 256 dimensions."""
    made.check()
    assert "cp.async.cg.shared.global" in made.ptx, "keys and values are copied by way of registers"
    if dtype == "fp32":
        assert not made.products, "products in less than float32"
        return
    if is_decode:
        assert made.products == {"mma.sync"}
        assert max(made.waits) >= 2, "keys and values are not fetched in advance"
        assert made.programs >= 2
        return
    assert made.products == {PRODUCTS.get(made.card.gpu.generation, "mma.sync")}
    if dim <= 128:
        assert max(made.waits) >= 2, "keys and values are not fetched in advance"


def small(name: str, dtype: str, dim: int, tmp_path: Path, card: Card) -> Compiled:
    """A kernel that only moves memory, of a model with 8 key heads of `dim` dimensions."""
    width = triton.next_power_of_2(dim)
    values = ("k", "v", "k_cache", "v_cache", "q", "cos", "sin", "x", "residual", "total", "weight")
    types = dict.fromkeys((*values, "out"), f"*{dtype}") | {
        "slots": "*i64",
        "eps": "fp32",
        "parts": "*fp32",
        "sums": "*fp32",
        "query_starts": "*i32",
        "context_lengths": "*i32",
    }
    block = {"DIM": dim, "BLOCK_SIZE": 16}
    hidden = 32 * dim
    norm = {"HEADS": 1, "UNIT_OFFSET": True}
    padded = triton.next_power_of_2(hidden)
    function, constants, num_warps = {
        "store": (
            kernel._store,
            {"HEADS": 8, "WIDTH": triton.next_power_of_2(8 * dim)} | block,
            4,
        ),
        "join": (
            kernel._join,
            {"DIM": dim, "WIDTH": width, "TILE": 64, "HAS_WINDOW": True},
            kernel.join_warps(width),
        ),
        "norm": (
            fused._norm,
            {"SIZE": hidden, "WIDTH": padded, "ADDS": True} | norm,
            fused.norm_warps(padded),
        ),
        "norm of heads": (
            fused._norm,
            {"SIZE": dim, "WIDTH": width, "ADDS": False} | norm,
            fused.norm_warps(width),
        ),
        "gated": (fused._gated, {"IS_SILU": True, "TILE": fused.GATED_TILE}, 4),
        "rotate and store": (
            fused._rotate_and_store,
            {"HEADS": 32, "WIDTH": width, "HALF": dim // 2} | block,
            1,
        ),
    }[name]
    return compiled(
        function,
        types,
        constants,
        tmp_path,
        num_warps,
        unaligned=("window", "num_splits"),
        card=card,
    )


SMALL = ("store", "join", "norm", "norm of heads", "gated", "rotate and store")


def check_small(made: Compiled, dtype: str, dim: int) -> None:
    made.check()
    assert made.registers <= 128
    assert not re.search(r"ld\.global\.[\w.]*b16", made.ptx), "memory is read in halves of a word"
    if dtype == "fp32" or dim >= 128:
        assert re.search(r"ld\.global\.[\w.]*v[24]\.", made.ptx), "memory is read word by word"
