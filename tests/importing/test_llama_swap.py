from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from swapper.config import Config, load_config, parse_config
from swapper.errors import ConfigError
from swapper.importing.draft import render
from swapper.importing.llama_swap import problems_of, translate

EVERYTHING = """
# a comment with ${nothing}
healthCheckTimeout: 500
globalTTL: 90
logLevel: debug
startPort: 10001
captureBuffer: 15
sendLoadingState: true
macros:
  "server": >
    sh -c true
    --port ${PORT}
  "ctx": 4096
  "args": "--ctx-size ${ctx}"
  "models": "${env.MODELS}"
apiKeys: ["${env.KEY}"]
models:
  big:
    macros: {ctx: 16384, temp: 0.7}
    cmd: |
      # ${nothing} here either
      ${server}
      --model '${models}/it is big.gguf' \\
      ${args} --temp ${temp}
    name: Big one
    env: ["CUDA_VISIBLE_DEVICES=0,1", "A=b=c"]
    proxy: http://127.0.0.1:8999
    checkEndpoint: none
    ttl: 0
    useModelName: org/big
    concurrencyLimit: 4
    filters:
      stripParams: "temperature, model, top_p"
      setParams: {temperature: 0.7}
      setParamsByID: {"${MODEL_ID}:high": {chat_template_kwargs: {reasoning_effort: high}}}
    aliases: [{id: gpt-4o, name: x}, plain]
    metadata: {note: "it's ${MODEL_ID}", temp: "${temp}"}
    sendLoadingState: true
  docker:
    cmd: sh run --name ${MODEL_ID} -p ${PORT}:80
    cmdStop: sh stop ${MODEL_ID} ${PID}
    unlisted: true
    ttl: 60
    unloadTimeout: 30
hooks: {on_startup: {preload: [docker]}}
peers:
  far:
    proxy: https://far/api
    apiKey: ${env.FAR}
    models: [one, big]
    timeouts: {connect: 1}
"""
ENVIRON = {"MODELS": "/m", "KEY": "k", "FAR": "f"}


def served(text: str) -> Config:
    """As `swapper serve --config` takes it."""
    return parse_config(text, "theirs.yaml", Path("/"), ENVIRON)


def imported(text: str) -> Config:
    """As what `swapper import` writes is taken."""
    return parse_config(render(translate(text, "theirs.yaml")), "ours.yaml", Path("/"), ENVIRON)


def models(names: str) -> str:
    return "models:\n" + "".join(f"  {name}: {{cmd: sh}}\n" for name in names.split())


@pytest.mark.parametrize("take", [served, imported])
def test_all_that_has_a_counterpart_is_carried_over(take) -> None:
    config = take(EVERYTHING)
    assert list(config.models) == ["big", "docker", "far/one", "far/big"]
    big = config.models["big"]
    assert big.launch.cmd == (
        "sh", "-c", "true", "--port", "${port}", "--model", "/m/it is big.gguf",
        "--ctx-size", "16384", "--temp", "0.7",
    )  # fmt: skip
    assert big.launch.env == {"CUDA_VISIBLE_DEVICES": "0,1", "A": "b=c"}
    assert (big.launch.url, big.launch.ready) == ("http://127.0.0.1:8999", None)
    assert big.launch.upstream_model == "org/big"
    assert big.spec.ttl_s == 0
    assert big.spec.parallel == 4
    assert big.spec.load_timeout_s == 500
    assert big.spec.aliases == ("gpt-4o", "plain", "big:high")
    plain, high = config.adjustments["plain"], config.adjustments["big:high"]
    assert (plain.drop, plain.set) == ({"temperature", "top_p"}, {"temperature": 0.7})
    assert high.set == {"temperature": 0.7, "chat_template_kwargs": {"reasoning_effort": "high"}}
    assert config.loading_text
    docker = config.models["docker"]
    assert docker.launch.cmd == ("sh", "run", "--name", "${model}", "-p", "${port}:80")
    assert docker.launch.stop_cmd == ("sh", "stop", "${model}", "${pid}")
    assert (docker.launch.url, docker.launch.ready) == (None, "/health")
    assert (docker.spec.ttl_s, docker.spec.stop_grace_s, docker.spec.preload) == (60, 30, True)
    one, other = config.models["far/one"], config.models["far/big"]
    assert (one.launch.url, one.launch.api_key) == ("https://far/api", "f")
    assert (one.spec.aliases, other.spec.aliases) == (("one",), ())  # `big` is a model here
    assert one.launch.upstream_model == "one"
    assert [key.key for key in config.api_keys] == ["k"]
    assert config.limits == {"": 1}


def test_what_is_left_out_is_said_at_its_place() -> None:
    draft = translate(EVERYTHING, "theirs.yaml")
    said = "\n".join(problems_of(draft))
    for text in (
        "captureBuffer: 15",
        'models.big: metadata: {note: "it\'s big", temp: 0.7}',
        "models.big: filters.stripParams: model (it is what a request is about)",
        "models.big: sendLoadingState: true",
        "models.far/one: timeouts: {connect: 1}",
    ):
        assert text in said
    text = render(draft)
    of_big = text[text.index("\n  big:") : text.index("\n  docker:")]
    assert "    # not carried over: metadata: " in of_big
    assert "startPort" not in text  # nobody misses it


def test_parameters_by_name_are_the_models_for_its_own_name() -> None:
    text = """
models:
  m:
    cmd: sh
    filters:
      setParams: {top_p: 0.9}
      setParamsByID: {"${MODEL_ID}": {effort: medium}, "${MODEL_ID}:high": {effort: high}}
"""
    said = served(text).adjustments
    assert said["m"].set == {"top_p": 0.9, "effort": "medium"}
    assert said["m:high"].set == {"top_p": 0.9, "effort": "high"}


def test_served_as_it_is_every_line_is_the_originals(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(EVERYTHING.replace("cmd: sh run", "cmd: nothing-like-it run"))
    config = load_config(path, ENVIRON)
    (problem,) = config.problems
    assert str(problem) == f"{path}:40: models.docker.cmd: there is no program nothing-like-it"
    assert any(w.line == 18 and "metadata" in w.text for w in config.warnings)


def test_an_environment_variable_that_is_missing_is_told_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"theirs.yaml:4: models.a.env.K: .* NOPE is not set"):
        served('models:\n  a:\n    cmd: sh\n    env: ["K=${env.NOPE}"]\n')


def test_secrets_stay_references_in_what_is_written() -> None:
    text = render(translate(EVERYTHING, "theirs.yaml"))
    assert 'api_keys: ["${env:KEY}"]' in text
    assert 'api_key: "${env:FAR}"' in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "models: {a: {cmd: 'x ${nope}'}}",
            r"f:1: models.a.cmd: the macro \$\{nope\} is not defined",
        ),
        ("macros: {a: '${b}', b: '${a}'}\nmodels: {m: {cmd: '${a}'}}", "holds itself"),
        ("models: {a: {cmd: ''}}", "f:1: models.a: a model needs a `cmd`"),
        (
            "models: {a: {cmd: x}}\ngroups: {g: {members: [b]}}",
            "f:2: groups.g: there is no model 'b'",
        ),
        ("models: {a: {cmd: x}}\nmatrix: {sets: {s: 'a & ('}}", "f:2: matrix: the set 's'"),
        ("models: {a: {cmd: x}}\npeers: {p: {models: [b]}}", "a peer needs a `proxy`"),
        ("models: [", "f:1: not YAML"),
        ("x: 1", "it is no llama-swap configuration"),
    ],
)
def test_what_llama_swap_would_not_take_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        translate(text, "f")


# ---------------------------------------------------------------- what may run together


def limits(text: str) -> dict[str, tuple[set[str], int]]:
    config = served(text)
    return {
        group: (
            {m.spec.name for m in config.models.values() if group in m.spec.groups},
            limit,
        )
        for group, limit in config.limits.items()
    }


def test_without_groups_one_model_at_a_time() -> None:
    assert limits(models("a b c")) == {"": ({"a", "b", "c"}, 1)}
    assert limits(models("a")) == {}


def test_a_group_that_does_not_swap_may_be_loaded_whole() -> None:
    text = models("a b c") + "groups: {all: {swap: false, members: [a, b, c]}}"
    assert limits(text) == {}


def test_exclusive_groups_are_apart_and_persistent_ones_stay() -> None:
    text = (
        models("a b c d e")
        + """
groups:
  talk: {members: [a, b]}
  sight: {swap: false, members: [c, d]}
  always: {swap: false, exclusive: false, persistent: true, members: [e]}
"""
    )
    found = limits(text)
    assert all(limit == 1 for _, limit in found.values())
    apart = {frozenset(pair) for members, _ in found.values() for pair in pairs_of(members)}
    assert apart == {frozenset(p) for p in ("ab", "ac", "ad", "bc", "bd")}
    config = served(text)
    assert [name for name, model in config.models.items() if model.spec.pin] == ["e"]


def pairs_of(members: set[str]) -> list[str]:
    return [a + b for a in members for b in members if a < b]


def test_a_matrix_allows_its_sets_and_no_others() -> None:
    text = (
        models("g q v L free")
        + """
matrix:
  vars: {gem: g, qw: q}
  evict_costs: {v: 50}
  sets:
    pair: "(gem | qw) & v"
    more: "+pair & L"
"""
    )
    found = limits(text)
    for members in ("gv", "qv", "gvL", "qL", "vL"):
        assert allowed(members, found), members
    for members in ("gq", "gqv", "gqL"):
        assert not allowed(members, found), members
    assert not allowed(["free", "g"], found)  # in no set: alone
    assert "evict_costs" in "\n".join(problems_of(translate(text, "f")))


def allowed(members: object, found: dict[str, tuple[set[str], int]]) -> bool:
    return all(len(of & set(members)) <= limit for of, limit in found.values())  # type: ignore[call-overload]


def test_routing_settings_are_where_newer_files_have_them() -> None:
    text = (
        models("a b")
        + "routing: {router: {settings: {groups: {g: {swap: false, members: [a, b]}}}},"
        + " scheduler: {settings: {fifo: {priority: {a: 7}}}}}"
    )
    assert limits(text) == {}
    assert served(text).models["a"].spec.priority == 7


# ---------------------------------------------------------------- and what it is not


def test_a_configuration_of_our_own_is_not_taken_for_one() -> None:
    for ours in ("{engine: echo}", "{path: a.gguf}", '{url: "http://x"}', '{cmd: "a ${port}"}'):
        models = parse_config(f"models: {{a: {ours}, b: {{cmd: sh}}}}", "f", Path("/"), {}).models
        assert models["b"].spec.engine == "command"
        assert models["b"].launch.cmd == ("sh",)
    with pytest.raises(ConfigError, match=r"models.b: needs an engine"):
        parse_config("models: {a: {engine: echo}, b: {ttl: 5m}}", "f", Path("/"), {})


def test_a_llama_server_that_swapper_could_serve_itself_is_told_of() -> None:
    cmd = "/opt/llama-server --port ${PORT} -m /m/x.gguf -c 8192 -ngl 99 -np=2"
    text = render(translate(yaml.safe_dump({"models": {"a": {"cmd": cmd}}}), "f"))
    assert "engine: llamacpp, path: /m/x.gguf, context: 8192, parallel: 2" in text
