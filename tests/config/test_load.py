"""What the core and the runtime get of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swapper.config import Config, Listen, parse_listen
from swapper.errors import ConfigError

Configure = Callable[..., Config]


def test_the_least_there_can_be(configure: Configure) -> None:
    config = configure("models: {m: {engine: echo}}")
    assert config.listen == (Listen("127.0.0.1", 8080),)
    assert config.api_keys == ()
    assert config.limits == {}
    spec = config.models["m"].spec
    assert (spec.ttl_s, spec.max_wait_s, spec.queue_timeout_s, spec.queue_limit) == (
        600,
        None,
        600,
        1000,
    )
    assert (spec.load_timeout_s, spec.stop_grace_s, spec.parallel) == (300, 10, 8)
    assert config.launches["m"].options == {"model": "m", "parallel": 8}


def test_an_engine_need_not_be_named_where_only_one_can_be_meant(
    configure: Configure, make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    make_gguf("m.GGUF")
    config = configure("""
models:
  file: {path: m.GGUF}
  folder: {path: checkpoint}
  program: {cmd: "server --port ${port}"}
  elsewhere: {url: "http://other:8080"}
""")
    engines = {name: model.spec.engine for name, model in config.models.items()}
    wanted = {"file": "llamacpp", "folder": "paged", "program": "command", "elsewhere": "url"}
    assert engines == wanted


def test_defaults_hold_where_a_model_says_nothing(configure: Configure) -> None:
    config = configure("""
defaults: {ttl: 1m, max_wait: 3s, queue_timeout: 1h30m, queue_limit: 7, load_timeout: 2s, stop_grace: 500ms}
models:
  a: {engine: echo}
  b: {engine: echo, ttl: 0, max_wait: auto, queue_limit: 8, stop_grace: 0}
""")
    a, b = config.models["a"].spec, config.models["b"].spec
    assert (a.ttl_s, a.max_wait_s, a.queue_timeout_s, a.queue_limit) == (60, 3, 5400, 7)
    assert (a.load_timeout_s, a.stop_grace_s) == (2, 0.5)
    assert (b.ttl_s, b.max_wait_s, b.queue_timeout_s, b.queue_limit) == (0, None, 5400, 8)
    assert b.stop_grace_s == 0


def test_llamacpp(configure: Configure, make_gguf: Callable[..., Path], tmp_path: Path) -> None:
    make_gguf("models/m.gguf")
    (tmp_path / "style.gguf").touch()
    config = configure("""
models:
  m:
    engine: llamacpp
    path: models/m.gguf
    aliases: [a, b]
    description: a model
    context: 1024
    parallel: 4
    kv_tokens: 2048
    gpu_layers: 0
    threads: 3
    flash_attention: true
    cache_type_k: q8_0
    cache_type_v: q4_0
    batch: 256
    ubatch: 128
    mmap: false
    mlock: true
    lora: [style.gguf, {path: style.gguf, scale: 0.5}]
    pin: true
    preload: true
""")
    assert config.problems == ()
    model = config.models["m"]
    assert model.spec.aliases == ("a", "b")
    assert model.spec.pin
    assert model.spec.preload
    assert model.launch.engine == "llamacpp"
    assert model.launch.options == {
        "model": "m",
        "path": str(tmp_path / "models/m.gguf"),
        "context": 1024,
        "parallel": 4,
        "kv_tokens": 2048,
        "threads": 3,
        "flash_attention": True,
        "cache_type_k": "q8_0",
        "cache_type_v": "q4_0",
        "batch": 256,
        "ubatch": 128,
        "mmap": False,
        "mlock": True,
        "lora": [
            {"path": str(tmp_path / "style.gguf"), "scale": 1.0},
            {"path": str(tmp_path / "style.gguf"), "scale": 0.5},
        ],
    }


def test_what_is_automatic_is_not_told_to_the_worker(
    configure: Configure, make_gguf: Callable[..., Path]
) -> None:
    make_gguf("m.gguf")
    config = configure(
        "models: {m: {engine: llamacpp, path: m.gguf, threads: auto, context: auto}}"
    )
    assert not {"threads", "context", "flash_attention", "kv_tokens"} & set(
        config.launches["m"].options
    )


def test_command(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    config = configure(
        """
models:
  m:
    engine: command
    cmd: sh -c 'serve "$0"' ${port} ${env:KEY}
    env: {CUDA_VISIBLE_DEVICES: "0", TOKEN: "${env:KEY}"}
    cwd: there
    stop_cmd: [docker, stop, "${model}"]
    url: http://127.0.0.1:${port}/prefix
    ready: null
    api_key: ${env:KEY}
    memory: {cuda:0: 20GiB, host: 1GiB}
    upstream_model: org/model
""",
        KEY="a b",
    )
    assert config.problems == ()
    launch = config.launches["m"]
    assert launch.cmd == ("sh", "-c", 'serve "$0"', "${port}", "a b")
    assert launch.env == {"CUDA_VISIBLE_DEVICES": "0", "TOKEN": "a b"}
    assert launch.cwd == str(tmp_path / "there")
    assert launch.stop_cmd == ("docker", "stop", "${model}")
    assert (launch.url, launch.ready) == ("http://127.0.0.1:${port}/prefix", None)
    assert (launch.api_key, launch.upstream_model) == ("a b", "org/model")
    assert config.models["m"].spec.variants[0].needs == {"cuda:0": 20 << 30, "host": 1 << 30}
    assert config.models["m"].spec.parallel == 64  # what such servers take at once is their affair


def test_url(configure: Configure) -> None:
    config = configure("""
models:
  m: {engine: url, url: "http://box:8080", api_key: k, upstream_model: x}
  n: {engine: url, url: "https://box/v1", ttl: 5m}
""")
    launch = config.launches["m"]
    assert (launch.url, launch.api_key, launch.upstream_model) == ("http://box:8080", "k", "x")
    assert config.models["m"].spec.ttl_s == 0
    assert config.models["n"].spec.ttl_s == 300
    assert config.models["m"].spec.parallel == 64


def test_echo_takes_what_it_is_given(configure: Configure) -> None:
    config = configure("""
models:
  m: {engine: echo, parallel: 3, context: 99, options: {load_s: 1.5, can_sleep: true}, memory: {host: 1MiB}}
""")
    options = {"model": "m", "parallel": 3, "context": 99, "load_s": 1.5, "can_sleep": True}
    assert config.launches["m"].options == options
    assert config.models["m"].spec.variants[0].needs == {"host": 1 << 20}


def test_limits_and_groups(configure: Configure) -> None:
    config = configure("""
max_loaded: 3
groups: {big: {members: [a, b]}, few: {members: [a], max_loaded: 2}}
models: {a: {engine: echo}, b: {engine: echo}, c: {engine: url, url: "http://x"}}
""")
    assert config.limits == {"": 3, "big": 1, "few": 2}
    groups = {name: model.spec.groups for name, model in config.models.items()}
    assert groups == {"a": ("", "big", "few"), "b": ("", "big"), "c": ()}


def test_api_keys(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "bob").write_text("of-bob\n")
    config = configure(
        'api_keys: ["${env:KEY}", {name: ann, key: of-ann}, {name: bob, file: bob}, {key: x}]\n'
        "models: {m: {engine: echo}}",
        KEY="of-nobody",
    )
    keys = {key.name: key.key for key in config.api_keys}
    assert keys == {"key-1": "of-nobody", "ann": "of-ann", "bob": "of-bob", "key-4": "x"}
    assert "of-" not in repr(config.api_keys)


@pytest.mark.parametrize(("content", "why"), [(None, "cannot be read"), ("\n", "is empty")])
def test_a_key_file_that_is_no_use(
    configure: Configure, tmp_path: Path, content: str | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    with pytest.raises(ConfigError, match=rf"swapper.yaml:1: api_keys\[0\].file: key {why}"):
        configure("api_keys: [{file: key}]\nmodels: {m: {engine: echo}}")


def test_what_is_missing_for_one_model_leaves_the_others(configure: Configure) -> None:
    config = configure("""
models:
  a:
    engine: llamacpp
    path: nix.gguf
    lora: [nix-too.gguf]
  b: {engine: command, cmd: no-such-program-anywhere --port 1}
  c: {engine: command, cmd: ./here, cwd: nowhere}
  d: {engine: echo}
""")
    found = [str(problem).partition("swapper.yaml")[2] for problem in config.problems]
    assert found[0].startswith(":5: models.a.path: nix.gguf: there is no such file (")
    assert found[1].startswith(":6: models.a.lora: there is no file ")
    assert found[2:] == [
        ":7: models.b.cmd: there is no program no-such-program-anywhere",
        ":8: models.c.cwd: there is no folder " + found[3].rpartition(" ")[2],
    ]
    assert list(config.models) == ["a", "b", "c", "d"]
    assert config.problem_of("d") is None
    assert "nix.gguf" in str(config.problem_of("a"))


def test_more_context_than_the_model_knows_is_a_warning(
    configure: Configure, make_gguf: Callable[..., Path]
) -> None:
    make_gguf("m.gguf")
    config = configure("models: {m: {engine: llamacpp, path: m.gguf, context: 4096}}")
    assert config.problems == ()
    (warning,) = config.warnings
    assert "4096 is more than the 2048 tokens the model was trained for" in str(warning)


@pytest.mark.parametrize(
    ("text", "shown", "is_local"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("localhost:0", "localhost:0", True),
        ("[::1]:80", "[::1]:80", True),
        ("[::]:80", "[::]:80", False),
        ("0.0.0.0:80", "0.0.0.0:80", False),
        ("127.3.2.1:80", "127.3.2.1:80", True),
        ("box.example:80", "box.example:80", False),
        ("/run/s.sock", "unix:/run/s.sock", True),
        ("unix:/run/s.sock", "unix:/run/s.sock", True),
    ],
)
def test_addresses(text: str, shown: str, is_local: bool) -> None:
    address = parse_listen(text)
    assert (str(address), address.is_local) == (shown, is_local)
    assert parse_listen(shown) == address


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "a:b", "a:70000", "unix:relative", "a:", None, 80]
)
def test_what_is_no_address(text: object) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        parse_listen(text)


def test_other_addresses_are_checked_too(configure: Configure) -> None:
    config = configure("models: {m: {engine: echo}}")
    assert config.listening_on((Listen("::1", 1),)).listen == (Listen("::1", 1),)
    with pytest.raises(ConfigError, match="no api_keys are set"):
        config.listening_on((Listen("0.0.0.0", 1),))
