from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Swapper = Callable[..., Result]
THEIRS = """
models:
  a: {cmd: "sh -c true", metadata: {x: 1}}
  b: {cmd: nothing-like-it}
"""


def test_import_writes_what_check_accepts(swapper: Swapper, tmp_path: Path) -> None:
    source, target = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    source.write_text(THEIRS.replace("  b: {cmd: nothing-like-it}\n", ""))
    result = swapper("import", str(source), "-o", str(target))
    assert result.exit_code == 0
    assert "1 model from llama-swap's" in result.stderr
    assert "not carried over:\n  a: metadata: {x: 1}" in result.stderr
    assert "    # not carried over: metadata: {x: 1}" in target.read_text()
    assert swapper("check", str(target)).exit_code == 0


def test_import_to_the_terminal(swapper: Swapper, tmp_path: Path) -> None:
    source = tmp_path / "theirs.yaml"
    source.write_text(THEIRS)
    result = swapper("import", str(source), "-o", "-")
    assert result.exit_code == 0
    assert result.stdout.startswith("# Made by `swapper import`")
    assert "there is no program nothing-like-it" in result.stderr
    assert list(tmp_path.iterdir()) == [source]


def test_import_replaces_nothing_unasked(swapper: Swapper, tmp_path: Path) -> None:
    source, target = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    source.write_text(THEIRS)
    target.write_text("mine")
    result = swapper("import", str(source), "-o", str(target))
    assert result.exit_code == 1
    assert "is there already" in result.stderr
    assert target.read_text() == "mine"
    assert swapper("import", str(source), "-o", str(target), "--force").exit_code == 0


def test_import_says_what_is_wrong_in_one_sentence(swapper: Swapper, tmp_path: Path) -> None:
    for text in ("models: {a: {cmd: '${x}'}}", "[", "a: 1"):
        (tmp_path / "theirs.yaml").write_text(text)
        result = swapper("import", str(tmp_path / "theirs.yaml"), "-o", str(tmp_path / "o"))
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "o").exists()
