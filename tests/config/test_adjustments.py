"""`set`, `default`, `drop` and `system`, of models and of their aliases."""

from __future__ import annotations

import pytest

from swapper.config import parse_config
from swapper.config.values import Adjustment
from swapper.errors import ConfigError

TEXT = """
models:
  plain: {engine: echo, aliases: [other]}
  chat:
    engine: echo
    set: {temperature: 0.7}
    default: {max_tokens: 100}
    drop: [seed]
    system: Be kind.
    aliases:
      - same
      - {name: "chat:precise", set: {temperature: 0}, drop: [top_p], system: Be exact.}
"""


def read(text, tmp_path):
    return parse_config(text, "swapper.yaml", tmp_path, {})


def test_aliases_change_what_the_model_says(tmp_path):
    config = read(TEXT, tmp_path)
    own = Adjustment(frozenset({"seed"}), {"max_tokens": 100}, {"temperature": 0.7}, "Be kind.")
    precise = Adjustment(
        frozenset({"seed", "top_p"}), {"max_tokens": 100}, {"temperature": 0}, "Be exact."
    )
    assert config.adjustments == {"chat": own, "same": own, "chat:precise": precise}
    assert config.models["chat"].spec.aliases == ("same", "chat:precise")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("set: {model: x}", "models.m.set: model is what a request is about"),
        ("drop: [messages]", "models.m.drop: messages is what"),
        ("set: [a]", "models.m.set: must be a mapping"),
        ("aliases: [{nam: x}]", "did you mean 'name'?"),
        ("aliases: [{name: x, default: {stream: true}}]", "aliases[0].default: stream is"),
        ('system: ""', "models.m.system: must not be empty"),
    ],
)
def test_what_is_wrong_is_named(keys, words, tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(f"models:\n  m:\n    engine: echo\n    {keys}\n", tmp_path)
    assert words in str(caught.value)
