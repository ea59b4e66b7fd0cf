from __future__ import annotations

from typing import Any

import pytest

from swapper.config.document import Document, read_document
from swapper.errors import ConfigError


def read(text: str, **environ: str) -> Any:
    document = read_document(text, "c.yaml", environ)
    assert document.problems == ()
    return document.value


def problems(text: str, **environ: str) -> list[str]:
    return [str(problem) for problem in read_document(text, "c.yaml", environ).problems]


def test_plain_values() -> None:
    text = "{a: 1, b: 1.5, c: true, d: text, e: ~, f: '010', g: [1, -2], h: 2s, i: 90%, j: 127.0.0.1:80}"
    assert read(text) == {
        "a": 1, "b": 1.5, "c": True, "d": "text", "e": None, "f": "010", "g": [1, -2], "h": "2s",
        "i": "90%", "j": "127.0.0.1:80",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("1:30", "90"),
        ("010", "8"),
        ("0x10", "16"),
        ("1_000", "1000"),
        ("0b11", "3"),
        ("no", "true or false"),
        ("yes", "true or false"),
        ("On", "true or false"),
        ("off", "true or false"),
        (".inf", "inf"),
        ("-.INF", "-inf"),
        (".nan", "nan"),
        ("2024-01-31", "2024-01-31"),
        ("1:30.5", "90.5"),
    ],
)
def test_yamls_surprises_are_errors_that_say_what_to_quote(written: str, read_as: str) -> None:
    (problem,) = problems(f"a: 1\nb:\n  c: {written}\n")
    assert problem.startswith(f"c.yaml:3: b.c: YAML reads {written} as {read_as}")
    assert problem.endswith(f'"{written}"')


def test_keys_are_text() -> None:
    assert problems("a: 1\n8: x\nno: y\n") == [
        'c.yaml:2: the key 8 is not text; quote it: "8"',
        'c.yaml:3: the key no is not text; quote it: "no"',
    ]


def test_a_key_is_set_once() -> None:
    assert problems("a: 1\nb: 2\na: 3\n") == ["c.yaml:3: a: set twice, first in line 1"]


def test_no_value_is_no_value() -> None:
    assert problems("a:\nb: 1\n") == ["c.yaml:1: a: has no value; remove the key, or give it one"]


@pytest.mark.parametrize(
    "text", ["a: !thing 1", "a: !!python/none x", "a: !!set {x, y}", "a: !!binary aGk="]
)
def test_tags_have_no_meaning(text: str) -> None:
    (problem,) = problems(text)
    assert "c.yaml:1: a: the tag" in problem


def test_anchors_are_merged_and_do_not_overwrite() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more {b: 4, c: 5}\none:\n  <<: *base\n  b: 3\ntwo:\n  <<: [*base, *more]\n"
    value = read(text)
    assert value["one"] == {"a": 1, "b": 3}
    assert value["two"] == {"a": 1, "b": 2, "c": 5}


def test_an_anchor_within_itself_is_an_error_and_no_endless_loop() -> None:
    (problem,) = problems("a: &a\n  - *a\n")
    assert problem == "c.yaml:1: a[0]: an anchor must not hold itself"


def test_only_mappings_are_merged() -> None:
    assert problems("a: &a 1\nb:\n  <<: *a\n") == [
        "c.yaml:3: b.<<: only a mapping can be merged in"
    ]


def test_the_environment_fills_values_and_is_never_read_as_yaml() -> None:
    assert read('a: "${env:KEY}"\nb: x-${env:KEY}-y', KEY="no: [") == {
        "a": "no: [",
        "b": "x-no: [-y",
    }


def test_a_variable_that_is_not_set_names_its_line() -> None:
    assert problems('a: 1\nb: ["${env:NIX}"]') == [
        "c.yaml:2: b[0]: the environment variable NIX is not set"
    ]


def test_command_lines_are_split_before_variables_are_filled_in() -> None:
    text = "models: {m: {cmd: \"run 'a b' ${env:KEY} ${port}\", stop_cmd: [x, '${env:KEY}']}}"
    model = read(text, KEY="two words; rm")["models"]["m"]
    assert model["cmd"] == ["run", "a b", "two words; rm", "${port}"]
    assert model["stop_cmd"] == ["x", "two words; rm"]


def test_an_open_quote_in_a_command_line() -> None:
    (problem,) = problems("models:\n  m:\n    cmd: run 'a\n")
    assert problem == "c.yaml:3: models.m.cmd: not a command line: no closing quotation"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1\nb: 2\n", "c.yaml:2: "),
        ("a: 1\n\tb: 2\n", "c.yaml:2: "),
        ("a: *nix", "c.yaml:1: "),
        ("b: 1\na: [${env:KEY}]\n", "c.yaml:2: "),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: "),
        ("a: \x00", "c.yaml: not YAML"),
        ("", "c.yaml: the file is empty"),
        ("# nothing", "c.yaml: the file is empty"),
    ],
)
def test_what_is_not_yaml(text: str, place: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(text)
    assert str(error.value).startswith(place)


def test_the_line_of_what_is_not_there_is_that_of_what_is_above() -> None:
    document = read_document("a:\n  b:\n    c: 1\n", "c.yaml", {})
    assert isinstance(document, Document)
    assert document.line_of(("a", "b", "missing", 3)) == 2
    assert document.line_of(("a", "b", "c")) == 3


def test_what_is_most_often_the_matter_is_said() -> None:
    with pytest.raises(ConfigError, match="indent with spaces"):
        read("a: 1\n\tb: 2\n")
    with pytest.raises(ConfigError, match="quote what holds"):
        read("a: [${env:KEY}]\n")
