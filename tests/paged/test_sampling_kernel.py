"""The kernel that chooses: what it finds in the interpreter, what comes of compiling it, what it launches."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from backends.paged.chooser import Chooser
from backends.paged.kernels import choice
from backends.paged.logprobs import score
from backends.paged.sampling import Settings, Way, sample
from backends.serving.engine import SamplingParams
from tests.paged.fake_device import CUDA, fake_device
from tests.paged.truncation import PARAMS

BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
CHECKS = Path(__file__).with_name("interpreted_sampling.py")
DEADLINE = 300.0
REGISTERS = 65536  # of one multiprocessor


@pytest.mark.timeout(DEADLINE + 30)
def test_it_finds_in_the_interpreter_what_a_cpu_finds() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CHECKS)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    not (BIN / "ptxas").exists() or not (BIN / "cuobjdump").exists(),
    reason="this build of triton has no ptxas or no cuobjdump",
)
@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET", "0") not in ("0", ""),
    reason="Triton interprets in this process",
)
@pytest.mark.parametrize("capability", [80, 89, 90])
@pytest.mark.parametrize("multiple", [16, 1])
def test_it_compiles_without_spills(
    capability: int, multiple: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`multiple`: what the size of the vocabulary is a multiple of."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # what it is now; unset, triton warns
    types = {
        **dict.fromkeys(("logits", "reals"), "*fp32"),
        **dict.fromkeys(("whole", "positions", "tokens"), "*i64"),
        **dict.fromkeys(("row_stride", "vocab_size"), "i32"),
        "TILE": "constexpr",
    }
    names = choice._choose.arg_names
    aligned = [i for i, n in enumerate(names) if types[n][0] == "*" or (multiple, n) == (16, n)]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned if names[i] != "TILE"}
    made = triton.compile(
        ASTSource(choice._choose, {n: types[n] for n in names}, {"TILE": choice.TILE}, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": choice.NUM_WARPS},
    )
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    report = subprocess.run(
        [BIN / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True
    ).stdout
    usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    assert (usage["STACK"], usage["LOCAL"]) == (0, 0)
    assert usage["REG"] * 32 * choice.NUM_WARPS <= REGISTERS
    if multiple == 16:
        assert "ld.global.v4" in made.asm["ptx"]


def test_whatever_the_settings_it_is_launched_once_and_compiled_beforehand() -> None:
    size, ways = 3000, [Way(SamplingParams(**params), seed=0) for params in PARAMS]
    ways.append(Way(SamplingParams(temperature=0.0), seed=0))
    with fake_device() as device:
        Chooser(size, CUDA).warm_up()
        compiled = set(device._compiled)
        for group in (*([way] for way in ways), ways):
            settings = Settings.of(group, size, CUDA)
            logits = torch.zeros(len(group), size, device=CUDA)
            positions = torch.zeros(len(group), dtype=torch.int64, device=CUDA)
            before, held = device.num_launched, device.held()
            tokens = sample(logits, settings, positions)
            assert device.num_launched - before == 2  # and the memory for the tokens
            assert device.held() - held == tokens.nbytes
            del tokens
        assert device._compiled == compiled


def test_logprobs_are_few_launches() -> None:
    with fake_device() as device:
        logits = torch.zeros(4, 3000, device=CUDA)
        tokens = torch.zeros(4, dtype=torch.int64, device=CUDA)
        before = device.num_launched
        score(logits, tokens, 5)
        assert device.num_launched - before <= 5  # of which two are views
