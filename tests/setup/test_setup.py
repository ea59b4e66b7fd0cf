"""The setup script knows which compilers get AMX wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "setup_script", Path(__file__).parents[2] / "scripts" / "setup.py"
)
setup = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup)


@pytest.mark.parametrize(
    ("version", "is_broken"),
    [
        ((10, 2), False), ((11, 4), True), ((11, 5), False), ((12, 2), True), ((12, 4), False),
        ((13, 2), True), ((13, 3), False), ((14, 1), False), ((16, 0), False),
    ],
)  # fmt: skip
def test_gcc_versions(version, is_broken):
    assert setup.gcc_breaks_amx(*version) is is_broken


def test_flags_of_the_user_are_kept(monkeypatch):
    monkeypatch.setenv("CXXFLAGS", "-O2")
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_VULKAN=ON")
    monkeypatch.setattr(setup, "compiler_breaks_amx", lambda: True)
    monkeypatch.setattr(setup, "find_nvcc", lambda: None)
    env = setup.llama_build()
    assert env["CXXFLAGS"] == f"-O2 {setup.NO_AMX}"
    assert env["CMAKE_ARGS"].endswith("-DGGML_VULKAN=ON")


def test_cuda_is_built_where_there_is_a_gpu_and_a_compiler(monkeypatch):
    monkeypatch.setattr(setup, "find_nvcc", lambda: "/usr/local/cuda/bin/nvcc")
    env = setup.llama_build()
    assert "-DGGML_CUDA=ON" in env["CMAKE_ARGS"]
    assert env["CUDACXX"] == "/usr/local/cuda/bin/nvcc"
