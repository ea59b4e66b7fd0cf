from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from swapper.config import demo_config, folder, load
from swapper.errors import ConfigError

Make = Callable[..., Path]


def test_every_gguf_is_a_model_named_after_its_file(make_gguf: Make, tmp_path: Path) -> None:
    make_gguf("a.gguf")
    make_gguf("sub/b-Q4_K_M.gguf")
    make_gguf("sub/deeper/c.gguf")
    config = load(tmp_path)
    assert list(config.models) == ["a", "b-Q4_K_M"]
    assert config.models["a"].launch.options["path"] == str(tmp_path / "a.gguf")
    assert config.models["a"].spec.engine == "llamacpp"
    assert (config.problems, config.warnings) == ((), ())
    assert [str(address) for address in config.listen] == ["127.0.0.1:8080"]


def test_a_split_file_is_one_model(make_gguf: Make, tmp_path: Path) -> None:
    first = make_gguf("big-00001-of-00002.gguf")
    shutil.copy(first, tmp_path / "big-00002-of-00002.gguf")
    config = load(tmp_path)
    assert list(config.models) == ["big"]
    assert config.warnings == ()


def test_what_is_no_language_model_is_skipped(make_gguf: Make, tmp_path: Path) -> None:
    make_gguf("a.gguf")
    make_gguf("mmproj-a.gguf")
    make_gguf("eyes.gguf", arch="clip")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    (tmp_path / "notes.txt").touch()
    config = load(tmp_path)
    assert list(config.models) == ["a"]
    assert [str(warning).removeprefix(f"{tmp_path}: ") for warning in config.warnings] == [
        "broken.gguf: broken.gguf is cut off within its header; skipped",
        "eyes.gguf: is no language model; skipped",
    ]


def test_the_same_name_twice(make_gguf: Make, tmp_path: Path) -> None:
    for place in ("m.gguf", "x/m.gguf", "y/m.gguf"):
        make_gguf(place)
    assert list(load(tmp_path).models) == ["m", "x/m", "y/m"]


@pytest.mark.parametrize("installed", [("torch",), ()])
def test_safetensors_are_served_where_their_engine_is_installed(
    installed: tuple[str, ...],
    make_gguf: Make,
    make_checkpoint: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: name if name in installed else None
    )
    make_gguf("a.gguf")
    make_checkpoint("b")
    config = load(tmp_path)
    engines = {name: model.spec.engine for name, model in config.models.items()}
    if installed:
        assert engines == {"a": "llamacpp", "b": "paged"}
        assert config.models["b"].launch.options["path"] == str(tmp_path / "b")
    else:
        assert engines == {"a": "llamacpp"}
        (warning,) = config.warnings
        assert "b: holds safetensors, which no engine that is installed serves" in str(warning)


def test_safetensors_beside_a_gguf_of_the_same_name(
    make_gguf: Make, make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    make_gguf("a.gguf")
    make_checkpoint("a")
    assert [model.spec.engine for model in load(tmp_path).models.values()] == ["llamacpp"]
    monkeypatch.setattr(folder, "DEMO_FOLDER", tmp_path)
    demo = demo_config().models
    assert {name: model.spec.engine for name, model in demo.items()} == {
        "a": "llamacpp",
        "a-paged": "paged",
    }
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name == "torch" else None)
    assert {name: model.spec.engine for name, model in demo_config().models.items()} == {
        "a": "paged"
    }


def test_safetensors_without_a_configuration(make_gguf: Make, tmp_path: Path) -> None:
    make_gguf("a.gguf")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/model.safetensors").touch()
    (warning,) = load(tmp_path).warnings
    assert "hf: holds safetensors and no config.json" in str(warning)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").touch()
    with pytest.raises(ConfigError, match=r"there is no model in this folder\n.*broken.gguf"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        folder.folder_config(tmp_path / "nix")


def test_the_demo(make_gguf: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "DEMO_FOLDER", tmp_path)
    with pytest.raises(ConfigError, match="the demo models are not installed"):
        demo_config()
    make_gguf("demo-chat.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'llm-swapper\[llamacpp\]'"):
        demo_config()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert list(demo_config().models) == ["demo-chat"]
