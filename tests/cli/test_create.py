from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from swapper.config import Config, load_config
from tests.config.conftest import write_gguf

Create = Callable[..., Result]


@pytest.fixture
def create(
    swapper: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Create:
    """Runs `swapper create` with a Modelfile of that text."""
    monkeypatch.chdir(tmp_path)
    write_gguf(tmp_path / "m/tiny.gguf")

    def run(name: str, text: str) -> Result:
        (tmp_path / "Modelfile").write_text(text)
        return swapper("create", name)

    return run


def config(tmp_path: Path) -> Config:
    found = load_config(tmp_path / "config.yaml", {})
    assert found.problems == ()
    return found


def test_from_a_file(create: Create, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m/style.gguf")
    result = create(
        "brief",
        '''# a comment
FROM ./m/tiny.gguf
parameter num_ctx 1024
PARAMETER temperature 0.3
PARAMETER stop "<|end|>"
PARAMETER stop User:
PARAMETER num_predict -1
PARAMETER mirostat 2
SYSTEM """Be brief.
No "poems": ever."""
ADAPTER m/style.gguf
MESSAGE user Hello
LICENSE MIT
''',
    )
    assert result.exit_code == 0, result.output
    assert "not carried over: mirostat: 2" in result.stderr
    assert "not carried over: MESSAGE user Hello" in result.stderr
    model = config(tmp_path).models["brief"]
    assert model.launch.options["path"] == str(tmp_path / "m/tiny.gguf")
    assert model.launch.options["context"] == 1024
    assert model.launch.options["lora"] == [{"path": str(tmp_path / "m/style.gguf"), "scale": 1.0}]
    said = config(tmp_path).adjustments["brief"]
    assert said.default == {"temperature": 0.3, "stop": ["<|end|>", "User:"]}
    assert said.system == 'Be brief.\nNo "poems": ever.'


@pytest.mark.parametrize(
    "before",
    [
        "models:\n  base: # it\n    engine: llamacpp\n    path: m/tiny.gguf\n    aliases: [b]\nmax_loaded: 1\n",
        "models:\n  base: # it\n    engine: llamacpp\n    path: m/tiny.gguf\n    aliases:\n      - b\n\nmax_loaded: 1\n",
        "models:\n  base: # it\n    engine: llamacpp\n    path: m/tiny.gguf\n    # more\nmax_loaded: 1\n",
    ],
)
def test_from_a_model_it_is_an_alias_that_needs_no_worker(
    create: Create, tmp_path: Path, before: str
) -> None:
    (tmp_path / "config.yaml").write_text(before)
    result = create("cool", "FROM base:latest\nPARAMETER temperature 0\nSYSTEM Hi.")
    assert result.exit_code == 0, result.output
    assert "served by base" in result.output
    found = config(tmp_path)
    assert list(found.models) == ["base"]
    assert "cool" in found.models["base"].spec.aliases
    assert (found.adjustments["cool"].default, found.adjustments["cool"].system) == (
        {"temperature": 0}, "Hi.",
    )  # fmt: skip
    assert "base" not in found.adjustments
    assert found.limits == {"": 1}
    assert "base: # it" in (tmp_path / "config.yaml").read_text()


def test_from_a_model_with_another_context_it_is_a_model(create: Create, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "models:\n  base:\n    engine: llamacpp\n    path: m/tiny.gguf\n    aliases: [b]\n"
        "    default: {top_p: 0.5}\n"
    )
    assert create("long", "FROM b\nPARAMETER num_ctx 2048\nPARAMETER temperature 1").exit_code == 0
    found = config(tmp_path)
    assert found.models["long"].launch.options["context"] == 2048
    assert found.adjustments["long"].default == {"top_p": 0.5, "temperature": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "FROM m/tiny.gguf\nTEMPLATE {{ .Prompt }}",
            "Modelfile:2: TEMPLATE is a Go template, which",
        ),
        ("SYSTEM x", "Modelfile: FROM is missing"),
        ("FROM llama3", "FROM llama3: there is no such file, and no such model"),
        ("FROM m/tiny.gguf\nFOO bar", "Modelfile:2: 'FOO bar' is no command"),
        ('FROM m/tiny.gguf\nSYSTEM """x', "Modelfile:2: the text has no end"),
        ("FROM m/tiny.gguf\nPARAMETER num_ctx", "Modelfile:2: PARAMETER num_ctx has no value"),
        ("FROM Modelfile", "is not a GGUF file"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(
    create: Create, tmp_path: Path, text: str, said: str
) -> None:
    result = create("x", text)
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "config.yaml").exists()
