"""Every error names file, line and key, and all come at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swapper.config import Config
from swapper.errors import ConfigError

Configure = Callable[..., Config]
MODELS = "\nmodels: {m: {engine: echo}}\n"


def errors(configure: Configure, text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        configure(text)
    return [line[line.index("swapper.yaml") :] for line in str(error.value).splitlines()]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("lisen: x" + MODELS, "1: lisen: is not known; did you mean 'listen'?"),
        ("keepalive_after: 2s" + MODELS, "1: keepalive_after: is not known"),
        ("defaults: {tll: 1m}" + MODELS, "1: defaults.tll: is not known; did you mean 'ttl'?"),
        ("defaults: {keepalive_after: 2}" + MODELS, "1: defaults.keepalive_after: a duration needs a unit, such as 2s or 2m"),
        ("defaults: {ttl: 10}" + MODELS, "1: defaults.ttl: a duration needs a unit, such as 10s or 10m"),
        ("defaults: {queue_limit: 0}" + MODELS, "1: defaults.queue_limit: must be 1 or more"),
        ("memory: {host: 20}" + MODELS, "1: memory.host: a size needs a unit, such as 20GiB"),
        ("memory: {host: 120%}" + MODELS, "1: memory.host: 120% is more than there is"),
        ("memory: {gpu: {gpu0: 1GiB}}" + MODELS, "1: memory.gpu: 'gpu0' is not a GPU; GPUs are named cuda:0, cuda:1, ..."),
        ("memory: {gpus: auto}" + MODELS, "1: memory.gpus: is not known; did you mean 'gpu'?"),
        ("max_loaded: -1" + MODELS, "1: max_loaded: must be 0 or more"),
        ("insecure: \"true\"" + MODELS, "1: insecure: must be true or false"),
        ("api_keys: [{nam: x}]" + MODELS, "1: api_keys[0].nam: is not known; did you mean 'name'?"),
        ("api_keys: [{name: x}]" + MODELS, "1: api_keys[0]: needs either key or file"),
        ("api_keys: [a, b, a]" + MODELS, "1: api_keys[2]: is the same key as api_keys[0]"),
        ("api_keys: ['']" + MODELS, "1: api_keys[0].key: must not be empty"),
        ("api_keys: x" + MODELS, "1: api_keys: must be a list, such as [a, b]"),
        ("listen: 8080" + MODELS, "1: listen: 8080 is not an address; write 127.0.0.1:8080 or unix:/path"),
        ("listen: []" + MODELS, "1: listen: must name at least one address, such as 127.0.0.1:8080"),
        ("groups: {g: {members: [n]}}" + MODELS, "1: groups.g.members[0]: there is no model 'n'"),
        ("groups: {g: {members: [m], maxloaded: 1}}" + MODELS, "1: groups.g.maxloaded: is not known; did you mean 'max_loaded'?"),
        ("models: {}", "1: models: must not be empty"),
        ("listen: 127.0.0.1:1", "1: models: is missing"),
        ("models: {m: {path: a.gguf, dtype: auto}}", "1: models.m.dtype: belongs to engine paged, not to llamacpp"),
        ("models: {m: {}}", "1: models.m: needs an engine: one of llamacpp, paged, echo, command, url"),
        ("models: {m: {engine: lamacpp}}", "1: models.m: engine 'lamacpp' is not known; did you mean 'llamacpp'?"),
        ("models: {m: {engine: vllm}}", "1: models.m: engine 'vllm' is not known; there are llamacpp, paged, echo, command, url"),
        ("models: {m: x}", "1: models.m: must be a mapping of keys to values"),
        ("models: {m: {engine: llamacpp}}", "1: models.m.path: is missing"),
        ("models: {' ': {engine: echo}}", "1: models. : is not a name for a model"),
    ],
)  # fmt: skip
def test_one_error(configure: Configure, text: str, error: str) -> None:
    assert errors(configure, text) == [f"swapper.yaml:{error}"]


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("contxt: 1", "contxt: is not known; did you mean 'context'?"),
        ("cmd: x", "cmd: belongs to engine command, not to llamacpp"),
        ("upstream_model: x", "upstream_model: belongs to engines command, url, not to llamacpp"),
        ("options: {}", "options: belongs to engine echo, not to llamacpp"),
        ("context: 32k", "context: must be auto or a whole number from 1 up, not '32k'"),
        ("context: 0", "context: must be auto or a whole number from 1 up, not 0"),
        ("gpu_layers: -1", "gpu_layers: must be auto or a whole number from 0 up, not -1"),
        ("threads: true", "threads: must be auto or a whole number from 1 up, not True"),
        ("flash_attention: maybe", "flash_attention: must be auto, true or false, not 'maybe'"),
        ("parallel: 2.5", "parallel: must be a whole number"),
        ("parallel: 300", "parallel: llama.cpp takes 256 at most"),
        ("aliases: x", "aliases: must be a list, such as [a, b]"),
        ("aliases: [1]", "aliases[0]: must be text; quote it if the text is meant"),
        ("devices: [gpu]", "devices[0]: 'gpu' is not a GPU; GPUs are named cuda:0, cuda:1, ..."),
        ("lora: [{pth: x, path: y}]", "lora[0].pth: is not known; did you mean 'path'?"),
        ("memory: {host: 1}", "memory: a size needs a unit, such as 1GiB"),
        ("memory: 1GiB", 'memory: must name devices and sizes, such as {"cuda:0": 20GiB, host: 2GiB}'),
        ("pin: 1", "pin: must be true or false"),
    ],
)  # fmt: skip
def test_one_error_of_a_model(configure: Configure, key: str, error: str) -> None:
    text = f"models:\n  m:\n    engine: llamacpp\n    path: x.gguf\n    {key}\n"
    assert errors(configure, text) == [f"swapper.yaml:5: models.m.{error}"]


def test_cache_types_are_named(configure: Configure) -> None:
    text = "models: {m: {engine: llamacpp, path: x, cache_type_k: q7}}"
    (error,) = errors(configure, text)
    assert "models.m.cache_type_k: must be 'f32', 'f16'" in error


def test_keys_that_contradict_each_other(configure: Configure) -> None:
    text = """models:
  m:
    engine: llamacpp
    path: x.gguf
    context: 4096
    kv_tokens: 2048
    flash_attention: false
    cache_type_v: q8_0
"""
    assert errors(configure, text) == [
        "swapper.yaml:6: models.m.kv_tokens: is less than context (4096), so no request could use that",
        "swapper.yaml:8: models.m.cache_type_v: q8_0 needs flash_attention",
    ]


def test_names_are_given_once(configure: Configure) -> None:
    text = """models:
  a: {engine: echo, aliases: [x, b]}
  b: {engine: echo, aliases: [x]}
  c: {engine: echo, aliases: [c]}
"""
    assert errors(configure, text) == [
        "swapper.yaml:2: models.a.aliases[1]: 'b' is already a name of 'b'",
        "swapper.yaml:3: models.b.aliases[0]: 'x' is already a name of 'a'",
        "swapper.yaml:4: models.c.aliases[0]: 'c' is already a name of 'c'",
    ]


def test_all_errors_come_at_once_in_the_order_of_the_file(configure: Configure) -> None:
    text = """lisen: x
defaults:
  ttl: 010
models:
  m:
    engine: echo
    aliases: no
  n: {engine: url, url: 3, ready: /x}
"""
    assert [error.split(": ")[0:2] for error in errors(configure, text)] == [
        ["swapper.yaml:1", "lisen"],
        ["swapper.yaml:3", "defaults.ttl"],
        ["swapper.yaml:7", "models.m.aliases"],
        ["swapper.yaml:8", "models.n.ready"],
        ["swapper.yaml:8", "models.n.url"],
    ]


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:80", "[::]:80", "box:80", "[127.0.0.1:1, 192.168.1.2:80]"]
)
def test_nobody_listens_to_the_world_without_a_key(configure: Configure, listen: str) -> None:
    listen = listen if listen.startswith("[1") else f'"{listen}"'
    (error,) = errors(configure, f"listen: {listen}{MODELS}")
    assert error.startswith("swapper.yaml:1: listen: ")
    assert "no api_keys are set" in error
    configure(f"listen: {listen}\ninsecure: true{MODELS}")
    configure(f"listen: {listen}\napi_keys: [x]{MODELS}")


@pytest.mark.parametrize("url", ["other-box", "ftp://x", "http://", "http://x:y", "//x"])
def test_addresses_of_servers(configure: Configure, url: str) -> None:
    (error,) = errors(configure, f"models: {{m: {{engine: url, url: '{url}'}}}}")
    assert "is not an address such as http://127.0.0.1:9000" in error


def test_no_secret_is_in_an_error(configure: Configure) -> None:
    for text in (
        "api_keys: [geheim, geheim]",
        "api_keys: [{key: geheim, nam: x}]",
        "api_keys: {x: geheim}",
    ):
        assert "geheim" not in "".join(errors(configure, text + MODELS))


def test_a_file_that_is_not_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    from swapper.config import load

    folder = tmp_path_factory.mktemp("empty")
    with pytest.raises(ConfigError, match=r"nix\.yaml: cannot be read: No such file"):
        load(folder / "nix.yaml")
    (folder / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(folder / "latin.yaml")
