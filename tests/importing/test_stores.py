from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swapper.config import parse_config
from swapper.config.schema import ENGINES
from swapper.errors import ConfigError
from swapper.importing.draft import Draft, DraftModel, render
from swapper.importing.sources import read_source

HAS_PAGED = "paged" in ENGINES


def named(draft: Draft) -> dict[str, DraftModel]:
    """By name; every draft that is looked at can be served."""
    assert parse_config(render(draft), "f", Path("/"), {}).problems == ()
    return {model.name: model for model in draft.models}


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---------------------------------------------------------------- Ollama


def test_an_ollama_store(ollama: Any, gguf_bytes: Callable[..., bytes]) -> None:
    weights = gguf_bytes()
    params = {"num_ctx": 1024, "temperature": 0.5, "stop": ["<|x|>"], "mirostat": 2, "num_gpu": -1}
    ollama.add(
        "registry.ollama.ai/library/llama3/latest",
        model=weights, params=params, system="Be brief.", template="{{ .Prompt }}", license="MIT",
    )  # fmt: skip
    ollama.add("registry.ollama.ai/me/own/q8", model=gguf_bytes(layers=3))
    ollama.add("hf.co/org/repo-GGUF/Q4_K_M", model=gguf_bytes(layers=4))
    before = tree(ollama.folder)
    models = named(read_source(str(ollama.folder)))
    assert tree(ollama.folder) == before
    assert list(models) == ["hf.co/org/repo-GGUF:Q4_K_M", "llama3", "me/own:q8"]
    llama = models["llama3"]
    assert Path(str(llama.keys["path"])).read_bytes() == weights
    assert (llama.keys["engine"], llama.keys["context"]) == ("llamacpp", 1024)
    assert llama.keys["aliases"] == ["llama3:latest"]
    assert "gpu_layers" not in llama.keys
    said = " ".join(llama.notes) + str(llama.keys)
    for text in ("temperature", "<|x|>", "mirostat: 2", "Be brief."):
        assert text in said
    assert "template" in " ".join(llama.hints)


def test_tags_that_are_the_same_are_one_model(
    ollama: Any, gguf_bytes: Callable[..., bytes]
) -> None:
    weights = gguf_bytes()
    for place in ("library/m/8b", "library/m/latest", "library/copy/latest"):
        ollama.add(f"registry.ollama.ai/{place}", model=weights)
    ollama.add("registry.ollama.ai/library/m/long", model=weights, params={"num_ctx": 2048})
    cool = {"temperature": 0.1}
    ollama.add("registry.ollama.ai/library/m/cool", model=weights, params=cool, system="Hi.")
    models = named(read_source(str(ollama.folder)))
    assert list(models) == ["copy", "m:long"]
    assert models["copy"].keys["aliases"] == [
        "copy:latest", "m:8b", {"name": "m:cool", "default": cool, "system": "Hi."}, "m", "m:latest",
    ]  # fmt: skip


def test_what_of_a_store_cannot_be_served_is_said(
    ollama: Any, gguf_bytes: Callable[..., bytes]
) -> None:
    ollama.add("registry.ollama.ai/library/good/latest", model=gguf_bytes())
    ollama.add("registry.ollama.ai/library/cloud/latest", license="x")
    ollama.add("registry.ollama.ai/library/mlx/latest", tensor=b"x")
    ollama.add("registry.ollama.ai/library/gone/latest", model=b"gone")
    (ollama.folder / "blobs" / f"sha256-{hashlib.sha256(b'gone').hexdigest()}").unlink()
    ollama.add("registry.ollama.ai/library/torn/latest", model=gguf_bytes(layers=5)[:900])
    (ollama.folder / "manifests/registry.ollama.ai/library/odd").mkdir()
    (ollama.folder / "manifests/registry.ollama.ai/library/odd/latest").write_text("[]")
    models = named(read_source(str(ollama.folder)))
    assert [name for name, model in models.items() if model.keys] == ["good"]
    said = {name: model.notes[0] for name, model in models.items() if not model.keys}
    assert "`ollama pull` brings it back" in said["gone"]
    assert "runs elsewhere" in said["cloud"]
    assert "only Ollama itself" in said["mlx"]
    assert "cut off" in said["torn"]
    assert "is no manifest" in said["odd"]


# ---------------------------------------------------------------- folders


def test_lm_studio(tmp_path: Path, gguf_file: Callable[..., Path]) -> None:
    home = ".lmstudio/models"
    gguf_file(f"{home}/lmstudio-community/Qwen2.5-7B-Instruct-GGUF/Qwen2.5-7B-Instruct-Q4_K_M.gguf")
    gguf_file(f"{home}/org/Two-GGUF/Two-Q4_K_M.gguf")
    gguf_file(f"{home}/org/Two-GGUF/Two-Q8_0.gguf")
    gguf_file(f"{home}/org/Two-GGUF/mmproj-Two-F16.gguf", arch="clip")
    for source in (tmp_path / home, tmp_path / ".lmstudio"):
        models = named(read_source(str(source)))
        assert list(models) == ["qwen2.5-7b-instruct", "two@q4_k_m", "two@q8_0"]
        aliases = models["qwen2.5-7b-instruct"].keys["aliases"]
        assert aliases == ["lmstudio-community/Qwen2.5-7B-Instruct-Q4_K_M"]
        assert "mmproj-Two-F16" in str(models["two@q8_0"])


def test_the_hub_cache(
    tmp_path: Path, gguf_file: Callable[..., Path], safetensors_folder: Callable[[str], Path]
) -> None:
    old = "hub/models--org--Name-GGUF/snapshots/aaa"
    new = "hub/models--org--Name-GGUF/snapshots/bbb"
    blob = gguf_file("hub/models--org--Name-GGUF/blobs/123")
    for place in (old, new):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "Name-Q4_K_M.gguf").symlink_to(blob)
    (tmp_path / new / "Name-Q8_0.gguf").symlink_to(blob)
    refs = tmp_path / "hub/models--org--Name-GGUF/refs"
    refs.mkdir()
    (refs / "main").write_text("bbb")
    safetensors_folder("hub/models--org--Torch/snapshots/ccc")
    (tmp_path / "hub/models--org--Empty/snapshots").mkdir(parents=True)
    for source in (tmp_path, tmp_path / "hub"):
        models = named(read_source(str(source)))
        found = ["org/Name-GGUF:Q4_K_M", "org/Name-GGUF:Q8_0", "org/Torch"]
        assert list(models) == found
        assert models[found[0]].keys["path"] == str(tmp_path / new / "Name-Q4_K_M.gguf")
        assert bool(models["org/Torch"].keys) == HAS_PAGED


def test_a_folder_of_files(
    tmp_path: Path, gguf_file: Callable[..., Path], safetensors_folder: Callable[[str], Path]
) -> None:
    gguf_file("box/chat-Q4_K_M.gguf")
    gguf_file("box/a/same.gguf")
    gguf_file("box/b/same.gguf")
    gguf_file("box/embed.gguf", arch="bert", pooling_type=1)
    gguf_file("box/.hidden/x.gguf")
    (tmp_path / "box/torn.gguf").write_bytes(b"GGUF")
    safetensors_folder("box/chat-Q4_K_M")
    models = named(read_source(str(tmp_path / "box")))
    served = [name for name, model in models.items() if model.keys]
    assert served[:4] == ["chat-Q4_K_M", "embed", "a/same", "b/same"]
    assert ("chat-Q4_K_M-safetensors" in served) == HAS_PAGED
    assert models["embed"].keys["role"] == "embedding"
    assert not models["torn"].keys


# ---------------------------------------------------------------- finding them


def test_tools_are_looked_for_where_they_keep_their_things(
    tmp_path: Path, ollama: Any, gguf_bytes: Callable[..., bytes], gguf_file: Callable[..., Path]
) -> None:
    ollama.add("registry.ollama.ai/library/m/latest", model=gguf_bytes())
    environ = {"HOME": str(tmp_path), "OLLAMA_MODELS": str(ollama.folder)}
    assert [model.name for model in read_source("ollama", environ).models] == ["m"]
    gguf_file("elsewhere/org/M-GGUF/M-Q4_K_M.gguf")
    (tmp_path / ".lmstudio").mkdir()
    settings = {"downloadsFolder": str(tmp_path / "elsewhere")}
    (tmp_path / ".lmstudio/settings.json").write_text(json.dumps(settings))
    assert [model.name for model in read_source("lm-studio", environ).models] == ["m"]
    (tmp_path / ".config/llama-swap").mkdir(parents=True)
    (tmp_path / ".config/llama-swap/config.yaml").write_text("models: {a: {cmd: sh}}")
    assert [model.name for model in read_source("llama-swap", environ).models] == ["a"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("huggingface", "huggingface: there is nothing in"),
        ("nothing-there", "there is no such file or folder, and no tool"),
        ("empty", "there is no model in it"),
        ("m.gguf", "is a model file; name its folder"),
        ("binary", "cannot be read"),
    ],
)
def test_sources_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=said):
        read_source(source, {"HOME": str(tmp_path)})
