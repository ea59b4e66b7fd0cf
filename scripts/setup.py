#!/usr/bin/env python3
"""Make `.venv` with swapper, its engines and what its tests need. Safe to run again.

Two things here are more than `pip install`:

- llama-cpp-python comes as source and is compiled. GCC before 11.5, 12.4 and 13.3 miscompiles AMX's
  tile configuration (gcc.gnu.org bug 114098; ggml-org/llama.cpp issue 20824): on a CPU with AMX every
  quantised model then crashes in its first step. With such a compiler AMX is left out of the build.
- Where an NVIDIA GPU and nvcc are found, it is compiled for CUDA.
- The paged engine is installed where an NVIDIA GPU is found, or with `ENGINES=all`. Without a GPU its
  torch is a build for CPUs, a tenth of the size of the others.

CMAKE_ARGS, CFLAGS and CXXFLAGS from the environment are kept, so other builds are one variable away:
`CMAKE_ARGS=-DGGML_VULKAN=ON make setup`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
LLAMA = "llama-cpp-python>=0.3.36"
TORCH = "torch==2.13.0"  # what the tests run with; any from 2.9 on will do
TORCH_FOR_CPUS = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    """Returns the exit status; what went wrong has been said by then."""
    try:
        make_venv()
        # A build that pip has cached may be one with AMX.
        install("llama-cpp-python", "--no-cache-dir", LLAMA, env=llama_build())
        extras = ["llamacpp", "dev"]
        if has_nvidia_gpu() or os.environ.get("ENGINES") == "all":
            extras.append("paged")
            install_torch()
        install("swapper and what its tests need", "--editable", f"{ROOT}[{','.join(extras)}]")
    except subprocess.CalledProcessError as error:
        print(f"\nsetup failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    return 0


def make_venv() -> None:
    """A virtual environment with pip; one that is whole is left alone."""
    probe = [str(PYTHON), "-m", "pip", "--version"]
    if PYTHON.exists() and subprocess.run(probe, capture_output=True).returncode == 0:
        return
    say("making .venv")
    try:
        venv.create(VENV, with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        print("Python's venv module is not complete; on Debian and Ubuntu:", file=sys.stderr)
        print("  sudo apt install python3-venv", file=sys.stderr)
        raise
    install("pip", "--upgrade", "pip")


def install(what: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    """pip install, quietly; `what` it is, for people."""
    say(f"installing {what}")
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **(env or {})})


def install_torch() -> None:
    """For GPUs it comes with the paged engine; for CPUs a build of its own, where one is to be had."""
    installed = [str(PYTHON), "-c", "import torch"]
    if has_nvidia_gpu() or subprocess.run(installed, capture_output=True).returncode == 0:
        return
    what = "torch for CPUs"
    try:
        install(what, "--timeout=10", "--retries=0", f"--index-url={TORCH_FOR_CPUS}", TORCH)
    except subprocess.CalledProcessError:
        say("that index cannot be reached; taking torch from where the others come from")
        install(what, TORCH)


def llama_build() -> dict[str, str]:
    """The environment in which llama.cpp is compiled."""
    cmake = [
        "-DLLAMA_BUILD_UI=OFF",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        os.environ.get("CMAKE_ARGS", ""),
    ]
    env = {}
    if nvcc := find_nvcc():
        say(f"compiling llama.cpp for CUDA ({nvcc}); this takes a while")
        cmake.insert(0, "-DGGML_CUDA=ON")
        env["CUDACXX"] = nvcc
    else:
        say("compiling llama.cpp for this CPU; this takes a few minutes")
    if compiler_breaks_amx():
        say("without AMX, which this compiler gets wrong")
        for name in ("CFLAGS", "CXXFLAGS"):
            env[name] = f"{os.environ.get(name, '')} {NO_AMX}".strip()
    return {**env, "CMAKE_ARGS": " ".join(filter(None, cmake))}


def compiler_breaks_amx() -> bool:
    """Whether the C++ compiler is a GCC for x86 without the fix of its bug 114098."""
    compiler = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++")
    if compiler is None:
        return False
    macros = subprocess.run(
        [compiler, "-x", "c++", "-dM", "-E", os.devnull], capture_output=True, text=True
    ).stdout
    found = dict(re.findall(r"#define (__\w+) (\w+)", macros))
    if "__clang__" in found or "__x86_64__" not in found or "__GNUC__" not in found:
        return False
    return gcc_breaks_amx(int(found["__GNUC__"]), int(found.get("__GNUC_MINOR__", "0")))


def gcc_breaks_amx(major: int, minor: int) -> bool:
    """Older ones than 11 have no AMX at all, so they cannot get it wrong, nor take the flags."""
    fixed_in = {11: 5, 12: 4, 13: 3}
    return minor < fixed_in.get(major, 0)


def find_nvcc() -> str | None:
    """The CUDA compiler, if there is a GPU to compile for."""
    if not has_nvidia_gpu():
        return None
    cuda = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc"
    return shutil.which("nvcc") or (str(cuda) if cuda.exists() else None)


def has_nvidia_gpu() -> bool:
    """Whether the driver lists one."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU 0" in listed.stdout


def say(text: str) -> None:
    """One line of what is going on."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
