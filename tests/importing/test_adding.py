from __future__ import annotations

import stat
from pathlib import Path

import pytest

from swapper.config import load_config
from swapper.errors import ConfigError
from swapper.importing.adding import add_to_file, with_model
from swapper.importing.draft import DraftModel

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def new(name: str = "new") -> DraftModel:
    return DraftModel(name, {"engine": "echo", "description": "it is: new"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'models:\n  new:\n    engine: echo\n    description: "it is: new"\n'),
        (
            "listen: 127.0.0.1:1 # here\n",
            "listen: 127.0.0.1:1 # here\n\nmodels:\n  new:\n    engine: echo\n"
            '    description: "it is: new"\n',
        ),
        (
            "models:\n    a:  # first\n        engine: echo\n        # ttl: 1m\n\n# the end\nmax_loaded: 1\n",
            "models:\n    a:  # first\n        engine: echo\n        # ttl: 1m\n\n    new:\n"
            '        engine: echo\n        description: "it is: new"\n\n# the end\nmax_loaded: 1\n',
        ),
        (
            "models:\n  a: {engine: echo}\n  b: {engine: echo,\n      ttl: 1m}",
            "models:\n  a: {engine: echo}\n  b: {engine: echo,\n      ttl: 1m}\n  new:\n"
            '    engine: echo\n    description: "it is: new"\n',
        ),
        (
            "models:\n  a:\n    engine: command\n    cmd: |\n      sh\n      -c true\nmax_loaded: 1\n",
            "models:\n  a:\n    engine: command\n    cmd: |\n      sh\n      -c true\n\n  new:\n"
            '    engine: echo\n    description: "it is: new"\nmax_loaded: 1\n',
        ),
    ],
)
def test_the_rest_stays_as_it_is(before: str, after: str) -> None:
    assert with_model(before, new(), "f") == after


def test_the_example_takes_one_more(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(EXAMPLE.read_text())
    path.chmod(0o600)
    assert add_to_file(path, new())
    assert list(load_config(path, {}).models) == ["echo", "new"]
    added = set(path.read_text().splitlines()) - set(EXAMPLE.read_text().splitlines())
    assert added == {"  new:", '    description: "it is: new"'}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep/config.yaml"
    assert add_to_file(path, new())
    assert not add_to_file(path, new())


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("models:\n  new: {engine: echo}\n", "config.yaml:2: there is a model 'new' already"),
        ("models: {a: {engine: echo}}\n", "(?s)on one line; add this by hand:.*new:"),
        ("models:\n", "`models` has no value"),
        ("models:\n  a: {engine: echo, aliases: [new]}\n", "is already a name of"),
        ("- a\n", "is no configuration"),
        ("a: [\n", "not YAML"),
    ],
)
def test_files_that_take_nothing_stay_as_they_are(tmp_path: Path, before: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(before)
    with pytest.raises(ConfigError, match=said):
        add_to_file(path, new())
    assert path.read_text() == before
