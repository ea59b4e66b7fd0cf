"""Every kernel compiled for Hopper, on a machine that need not have a GPU: what the interpreter forgives
fails here, and registers, spills and the kind of instructions are read from what would run."""

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

BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
pytestmark = pytest.mark.skipif(
    not (BIN / "ptxas").exists() or not (BIN / "cuobjdump").exists(),
    reason="this build of triton has no ptxas or no cuobjdump",
)

HOPPER = GPUTarget("cuda", 90, 32)
SHARED_MEMORY = 227 * 1024  # bytes that one program may have
REGISTERS = 65536  # of one multiprocessor


@dataclass(frozen=True)
class Compiled:
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
        return min(by_registers, SHARED_MEMORY // max(self.shared, 1))

    @property
    def waits(self) -> set[int]:
        """Copies that are still under way when the oldest is waited for."""
        return {int(n) for n in re.findall(r"cp\.async\.wait_group\s+(\d+)", self.ptx)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # what it is now; unset, triton warns


def compiled(
    function: Any,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    tmp_path: Path,
    num_warps: int,
    num_stages: int = 3,
    unaligned: Sequence[str] = (),
) -> Compiled:
    """`types` of arguments; the others are strides. All are multiples of 16 but those `unaligned`."""
    names = function.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    aligned = [i for i, n in enumerate(names) if n not in constants and n not in unaligned]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned if signature[names[i]] != "fp32"}
    made = triton.compile(
        ASTSource(function, signature, dict(constants), attributes),
        target=HOPPER,
        options={"num_warps": num_warps, "num_stages": num_stages},
    )
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    report = subprocess.run(
        [BIN / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True
    ).stdout
    usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    return Compiled(
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
) -> Compiled:
    itemsize = 4 if dtype == "fp32" else 2
    shaped = kernel.decode_shape if is_decode else kernel.prefill_shape
    shape = shaped(group, dim, itemsize)
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
    )


@pytest.mark.parametrize("features", [False, True], ids=["plain", "window, softcap, sinks"])
@pytest.mark.parametrize(("dim", "group"), [(64, 8), (96, 1), (128, 4), (256, 2)])
def test_prefill_uses_the_tensor_cores_of_hopper(
    dim: int, group: int, features: bool, tmp_path: Path
) -> None:
    made = attention(tmp_path, "bf16", dim, group, is_decode=False, features=features)
    assert "wgmma.mma_async" in made.ptx
    assert "mma.sync" not in made.ptx
    assert (made.stack, made.local) == (0, 0)
    assert made.programs >= 1
    if dim <= 128:
        assert max(made.waits) >= 2, "keys and values are not fetched in advance"


@pytest.mark.parametrize("features", [False, True], ids=["plain", "window, softcap, sinks"])
@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize(("dim", "group"), [(64, 8), (128, 4), (256, 2)])
def test_decode_fetches_in_advance_and_leaves_room_for_others(
    dim: int, group: int, is_split: bool, features: bool, tmp_path: Path
) -> None:
    made = attention(tmp_path, "bf16", dim, group, True, is_split, features)
    assert "mma.sync" in made.ptx
    assert (made.stack, made.local) == (0, 0)
    assert max(made.waits) >= 2, "keys and values are not fetched in advance"
    assert made.programs >= (2 if dim > 128 else 3)


@pytest.mark.parametrize(("dtype", "dim"), [("fp16", 128), ("fp32", 128), ("fp32", 256)])
@pytest.mark.parametrize("is_decode", [False, True], ids=["prefill", "decode"])
def test_other_precisions_compile_without_spills(
    dtype: str, dim: int, is_decode: bool, tmp_path: Path
) -> None:
    made = attention(tmp_path, dtype, dim, 4, is_decode)
    assert (made.stack, made.local) == (0, 0)
    assert made.programs >= 1


def test_parts_are_joined_without_spills(tmp_path: Path) -> None:
    types = {"parts": "*fp32", "sums": "*fp32", "out": "*bf16"}
    metadata = {"query_starts": "*i32", "context_lengths": "*i32"}
    constants = {"DIM": 128, "WIDTH": 128, "SPLITS": 64, "TILE": 64, "HAS_WINDOW": True}
    made = compiled(
        kernel._join, types | metadata, constants, tmp_path, num_warps=4, unaligned=("window",)
    )
    assert (made.stack, made.local) == (0, 0)
    assert made.registers <= 128


SMALL = {
    "store": (
        kernel._store,
        dict.fromkeys(("k", "v", "k_cache", "v_cache"), "*bf16") | {"slots": "*i64"},
        {"HEADS": 8, "DIM": 128, "WIDTH": 1024, "BLOCK_SIZE": 16},
    ),
    "norm": (
        fused._norm,
        dict.fromkeys(("x", "residual", "total", "out", "weight"), "*bf16") | {"eps": "fp32"},
        {"HEADS": 1, "SIZE": 4096, "WIDTH": 4096, "UNIT_OFFSET": False, "ADDS": True},
    ),
    "gated": (
        fused._gated,
        {"x": "*bf16", "out": "*bf16"},
        {"IS_SILU": True, "TILE": fused.GATED_TILE},
    ),
    "rotate and store": (
        fused._rotate_and_store,
        dict.fromkeys(("q", "k", "v", "cos", "sin", "out", "k_cache", "v_cache"), "*bf16")
        | {"slots": "*i64"},
        {"HEADS": 32, "DIM": 128, "WIDTH": 128, "HALF": 64, "BLOCK_SIZE": 16},
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_what_only_moves_memory_moves_it_in_wide_pieces(name: str, tmp_path: Path) -> None:
    function, types, constants = SMALL[name]
    made = compiled(function, types, constants, tmp_path, num_warps=1 if "rotate" in name else 4)
    assert (made.stack, made.local) == (0, 0)
    assert made.registers <= 128
    assert re.search(r"(ld|st)\.global\.[\w.]*v[24]\.", made.ptx)
