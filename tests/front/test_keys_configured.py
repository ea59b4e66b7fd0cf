"""Keys as they are written down, and where their secrets may come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from swapper.config import parse_config
from swapper.errors import ConfigError

MODELS = "models: {a: {engine: echo, aliases: [first]}, b: {engine: echo}}\n"


def keys_of(text, environ=None):
    return parse_config(MODELS + text, "config.yaml", Path("/"), environ or {}).api_keys


def test_a_key_that_says_nothing_else_is_for_everything():
    (key,) = keys_of("api_keys: [secret]")
    assert (key.scopes, key.models, key.rate) == ({"inference", "admin"}, set(), None)


def test_scopes_models_by_any_name_and_rates():
    text = "api_keys: [{key: k, name: ann, scopes: [inference], models: [first, b], rate: 60/m}]"
    (key,) = keys_of(text)
    assert key.scopes == {"inference"}
    assert key.models == {"a", "b"}
    assert key.rate == (60, 60.0)
    assert "k" not in repr(key).replace("key", "").replace("ApiKey", "")


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("{key: k, models: [firts]}", "there is no model 'firts'; did you mean 'first'?"),
        ("{key: k, rate: often}", "'often' is not a rate; write it as 60/m, 5/s or 1000/d"),
        ("{key: k, rate: 0/m}", "is not a rate"),
        ("{key: k, scopes: [all]}", "api_keys"),
        ("{key: k, scopes: []}", "api_keys"),
    ],
)
def test_what_is_wrong_is_said(entry, complaint):
    with pytest.raises(ConfigError) as caught:
        keys_of(f"api_keys: [{entry}]")
    assert complaint in str(caught.value)


def test_a_key_from_a_credential(tmp_path):
    (tmp_path / "api-key").write_text("s3cret\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    (key,) = keys_of('api_keys: ["${credential:api-key}"]', environ)
    assert key.key == "s3cret"


@pytest.mark.parametrize("name", ["missing", "../secret", ""])
def test_a_credential_that_is_not_there_is_an_error(name, tmp_path):
    (tmp_path / "secret").write_text("not a credential")
    (tmp_path / "credentials").mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    with pytest.raises(ConfigError, match="the credential"):
        keys_of(f'api_keys: ["${{credential:{name}}}"]', environ)


def test_without_systemd_there_are_no_credentials():
    with pytest.raises(ConfigError, match="LoadCredential"):
        keys_of('api_keys: ["${credential:api-key}"]')
