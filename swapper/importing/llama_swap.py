"""A llama-swap configuration, told as swapper's: written by `swapper import`, or served as it is.

What has a counterpart is carried over in meaning: seconds become durations, macros are filled in, rules of
what may run together become groups. All else is a note at its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations

from swapper.config.document import Document, read_document
from swapper.config.problems import KeyPath, Problem, dotted
from swapper.config.schema import ASKED
from swapper.errors import ConfigError
from swapper.importing.draft import Draft, DraftModel, flow, put, render, seconds
from swapper.importing.llama_server import equivalent
from swapper.importing.located import read_located
from swapper.importing.macros import UnknownMacro, fill_in
from swapper.importing.matrix import BadExpression, allowed_sets
from swapper.importing.together import Limit, limits_of_conflicts, limits_of_sets

LOAD_TIMEOUT_S = 120  # llama-swap's own defaults
LEAST_LOAD_TIMEOUT_S = 15
PROXY = "http://localhost:${port}"
READY = "/health"

_OF_NO_USE = {  # at the top
    "startPort": "swapper finds free ports by itself",
    "logLevel": "logs say what matters",
    "logTimeFormat": "logs are structured",
    "logToStdout": "workers' output is at /logs",
    "metricsMaxInMemory": "metrics are counters, at /metrics",
    "captureBuffer": "requests are not captured unless asked for",
    "includeAliasesInList": "aliases stand beside each model in /v1/models",
    "store": "swapper keeps its state under $XDG_STATE_HOME/swapper",
    "performance": "swapper measures devices by itself",
    "ui": "it concerns llama-swap's own page",
    "upstream": "any /upstream request loads its model",
}
_ELSEWHERE = {"models", "macros", "groups", "matrix", "routing", "hooks", "peers", "apiKeys"}
_ELSEWHERE |= {"globalTTL", "healthCheckTimeout", "unloadTimeout", "sendLoadingState"}


def read_llama_swap(
    text: str, file: str, environ: Mapping[str, str]
) -> tuple[Document, list[Problem]]:
    """The document it stands for, with the lines of the original; and what is not carried over.

    Raises ConfigError for what llama-swap itself would not take.
    """
    draft = translate(text, file)
    document = read_document(render(draft), file, environ)
    by_key = {dotted(path): line for path, line in draft.lines.items()}
    told = replace(
        document,
        lines=draft.lines,
        problems=tuple(replace(p, line=_line(by_key, p.key)) for p in document.problems),
    )
    return told, [told.problem(path, note) for path, note in draft.left_out()]


def _line(by_key: Mapping[str, int], key: str) -> int | None:
    while key and key not in by_key:
        key = key.rpartition(".")[0]
    return by_key.get(key)


def translate(text: str, file: str) -> Draft:
    """The configuration as a draft; raises ConfigError."""
    value, lines = read_located(text, file)
    if not isinstance(value, Mapping) or not isinstance(value.get("models"), Mapping):
        raise ConfigError(
            f"{file}: there are no `models:` in it; it is no llama-swap configuration"
        )
    return _Translation(value, lines, file).draft()


class _Translation:
    """One file."""

    def __init__(
        self, value: Mapping[str, object], lines: Mapping[KeyPath, int], file: str
    ) -> None:
        self._value = value
        self._lines = lines
        self._file = file
        self._draft = Draft(origin=f"llama-swap's {file}")
        self._macros = _mapping(value.get("macros"))
        self._names = [str(name) for name in _mapping(value["models"])]

    def draft(self) -> Draft:
        for name, section in _mapping(self._value["models"]).items():
            self._model(str(name), section)
        self._peers()
        self._top()
        self._alone_or_together()
        self._preload()
        return self._draft

    # ------------------------------------------------------------ the top

    def _top(self) -> None:
        draft, value = self._draft, self._value
        if keys := _list(value.get("apiKeys")):
            draft.top["api_keys"] = [self._filled(key, ("apiKeys",), "") for key in keys]
        wait = max(LEAST_LOAD_TIMEOUT_S, _number(value.get("healthCheckTimeout"), LOAD_TIMEOUT_S))
        defaults: dict[str, object] = {
            "ttl": seconds(_number(value.get("globalTTL"), 0)),
            "load_timeout": seconds(wait),
        }
        if (grace := _number(value.get("unloadTimeout"), 0)) > 0:
            defaults["stop_grace"] = seconds(grace)
        if value.get("sendLoadingState") is True:
            defaults["loading_text"] = True
        draft.top["defaults"] = defaults
        for key in value.keys() - _ELSEWHERE:
            if (why := _OF_NO_USE.get(str(key))) is None:
                draft.notes.append(f"{key}: {flow(value[key])} (it has no counterpart)")
            elif _matters(str(key), value[key]):
                draft.notes.append(f"{key}: {flow(value[key])} ({why})")
        draft.notes.sort()
        for path, line in self._lines.items():
            if len(path) == 1 and path[0] in _TOP_KEYS:
                draft.lines[(_TOP_KEYS[str(path[0])],)] = line
        draft.lines[()] = 1

    # ------------------------------------------------------------ models

    def _model(self, name: str, section: object) -> None:
        path: KeyPath = ("models", name)
        if not isinstance(section, Mapping) or not section.get("cmd"):
            raise self._error(path, "a model needs a `cmd`")
        model = DraftModel(name, {"engine": "command"})
        self._draft.models.append(model)
        self._draft.lines[path] = self._lines[path]
        macros = {**self._macros, **_mapping(section.get("macros"))}

        def get(key: str, is_for_start: bool = False) -> object:
            given = section.get(key)
            if key in ("cmd", "cmdStop") and isinstance(given, str):
                given = _without_comments(given)
            named = "${model}" if is_for_start else name
            return self._filled(given, (*path, key), named, macros)

        for key in section:
            if (own := _OWN_NAMES.get(str(key))) is not None:
                self._draft.lines[(*path, own)] = self._lines[(*path, str(key))]
        _command(model, get)
        self._times(model, get, (*path, "ttl"))
        self._names_of(model, get)
        self._filters(model, _mapping(get("filters")))
        for key in section.keys() - _OWN_NAMES.keys() - {"macros", "name", "filters"}:
            if section[key] not in (None, False, {}, []):
                model.notes.append(f"{key}: {flow(get(str(key)))}{_WHY.get(str(key), '')}")
        model.notes.sort()
        if (same := equivalent(str(model.keys["cmd"]))) is not None:
            model.hints.append(f"swapper can serve this file itself: {same}")

    def _times(self, model: DraftModel, get: Callable[[str], object], path: KeyPath) -> None:
        ttl = _number(get("ttl"), -1)
        if ttl >= 0:
            model.keys["ttl"] = seconds(ttl)
        if (grace := _number(get("unloadTimeout"), 0)) > 0:
            model.keys["stop_grace"] = seconds(grace)
        limit = _number(get("concurrencyLimit"), 0)
        if limit > 0:
            model.keys["parallel"] = int(limit)

    def _names_of(self, model: DraftModel, get: Callable[[str], object]) -> None:
        aliases = [
            str(alias.get("id") if isinstance(alias, Mapping) else alias)
            for alias in _list(get("aliases"))
        ]
        by_id = _mapping(_mapping(get("filters")).get("setParamsByID"))
        taken = [name for name in dict.fromkeys([*aliases, *by_id]) if name != model.name]
        if taken:
            model.keys["aliases"] = [
                _alias(model, name, _mapping(by_id.get(name))) for name in taken
            ]
        if told := get("description") or get("name"):
            model.keys["description"] = str(told)
        if get("useModelName"):
            model.keys["upstream_model"] = str(get("useModelName"))
        if get("unlisted"):
            put(model, "unlisted", True, called="unlisted", otherwise="every model is listed")

    def _filters(self, model: DraftModel, filters: Mapping[str, object]) -> None:
        own = _mapping(_mapping(filters.get("setParamsByID")).get(model.name))
        params = {**_mapping(filters.get("setParams")), **own}
        if params := _allowed(model, params, "filters.setParams"):
            model.keys["set"] = params
        strip = str(filters.get("stripParams") or filters.get("strip_params") or "")
        names = {name.strip(): True for name in strip.split(",") if name.strip()}
        if dropped := _allowed(model, names, "filters.stripParams"):
            model.keys["drop"] = [*dropped]
        known = {"setParams", "stripParams", "strip_params", "setParamsByID"}
        for key in sorted(filters.keys() - known):
            model.notes.append(f"filters: {flow({key: filters[key]})}")

    def _peers(self) -> None:
        peers = _mapping(self._value.get("peers"))
        served = [str(name) for peer in peers.values() for name in _list(_get(peer, "models"))]
        for peer, section in peers.items():
            path: KeyPath = ("peers", str(peer))
            if not isinstance(section, Mapping) or not section.get("proxy"):
                raise self._error(path, "a peer needs a `proxy`")
            for served_name in _list(section.get("models")):
                name = str(served_name)
                model = DraftModel(f"{peer}/{name}", {"engine": "url"})
                model.keys["url"] = self._filled(section["proxy"], (*path, "proxy"), name)
                if section.get("apiKey"):
                    model.keys["api_key"] = self._filled(section["apiKey"], (*path, "apiKey"), name)
                model.keys["upstream_model"] = name
                if served.count(name) == 1 and name not in self._names:
                    model.keys["aliases"] = [name]
                self._filters(model, _mapping(section.get("filters")))
                for key in sorted(section.keys() - {"proxy", "apiKey", "models", "filters"}):
                    model.notes.append(f"{key}: {flow(section[key])}")
                self._draft.lines[("models", model.name)] = self._lines[path]
                self._draft.models.append(model)

    # ------------------------------------------------------------ which of them together

    def _alone_or_together(self) -> None:
        routing = _mapping(_get(_mapping(self._value.get("routing")), "router"))
        settings = _mapping(routing.get("settings"))
        groups = _mapping(self._value.get("groups") or settings.get("groups"))
        matrix = _mapping(self._value.get("matrix") or settings.get("matrix"))
        limits = self._matrix(matrix) if matrix else self._groups(groups)
        self._priorities()
        everyone = Limit(tuple(self._names), 1)
        if limits == [everyone] or (len(self._names) == 1 and not limits):
            if len(self._names) > 1:
                self._draft.top["max_loaded"] = 1
                self._draft.comments["max_loaded"] = _ONE_AT_A_TIME
        elif limits:
            named = {_group_name(limit, groups, i): limit for i, limit in enumerate(limits, 1)}
            self._draft.top["groups"] = {
                name: {"members": list(limit.members), "max_loaded": limit.max_loaded}
                for name, limit in named.items()
            }
            self._draft.comments["groups"] = _AS_THERE

    def _groups(self, groups: Mapping[str, object]) -> list[Limit]:
        rules = [_Group(name, section) for name, section in groups.items()]
        grouped = {member for rule in rules for member in rule.members}
        for rule in rules:
            for member in rule.members:
                if member not in self._names:
                    raise self._error(("groups", rule.name), f"there is no model '{member}'")
        rest = [name for name in self._names if name not in grouped]
        rules.append(_Group("(default)", {"members": rest}))
        home = {member: rule for rule in rules for member in rule.members}
        pairs = [
            frozenset((one, other))
            for one, other in combinations(self._names, 2)
            if _are_apart(home[one], home[other])
        ]
        kept_apart = {name for pair in pairs for name in pair}
        for model in self._draft.models:
            stays = model.name in home and home[model.name].persistent
            if stays and model.name not in kept_apart:
                model.keys["pin"] = True
        return limits_of_conflicts(self._names, pairs)

    def _matrix(self, matrix: Mapping[str, object]) -> list[Limit]:
        words = _mapping(matrix.get("vars"))

        def resolve(word: str) -> str | None:
            name = str(words.get(word, word))
            return name if name in self._names else None

        sets = {str(name): str(text) for name, text in _mapping(matrix.get("sets")).items()}
        try:
            allowed = allowed_sets(sets, resolve)
        except BadExpression as error:
            raise self._error(("matrix",), str(error)) from None
        if costs := matrix.get("evict_costs"):
            self._draft.notes.append(
                f"matrix.evict_costs: {flow(costs)} (swapper measures what a load costs)"
            )
        return limits_of_sets(self._names, allowed)

    def _priorities(self) -> None:
        scheduler = _mapping(_get(_mapping(self._value.get("routing")), "scheduler"))
        fifo = _mapping(_mapping(scheduler.get("settings")).get("fifo"))
        priorities = _mapping(fifo.get("priority"))
        for model in self._draft.models:
            if isinstance(level := priorities.get(model.name), int):
                model.keys["priority"] = level

    def _preload(self) -> None:
        hooks = _mapping(_get(_mapping(self._value.get("hooks")), "on_startup"))
        wanted = [str(name) for name in _list(hooks.get("preload"))]
        for model in self._draft.models:
            if model.name in wanted:
                model.keys["preload"] = True
                wanted.remove(model.name)
        for name in wanted:
            self._draft.notes.append(f"hooks.on_startup.preload: {name} (there is no such model)")

    # ------------------------------------------------------------ small things

    def _filled(
        self,
        value: object,
        path: KeyPath,
        model: str,
        macros: Mapping[str, object] | None = None,
    ) -> object:
        try:
            return fill_in(value, self._macros if macros is None else macros, model)
        except UnknownMacro as error:
            raise self._error(path, str(error)) from None

    def _error(self, path: KeyPath, text: str) -> ConfigError:
        place = path
        while place and place not in self._lines:
            place = place[:-1]
        return ConfigError(str(Problem(self._file, self._lines.get(place), dotted(path), text)))


class _Group:
    """A group's rules: whether its members swap, unload all others, and stay when others load."""

    def __init__(self, name: str, section: object) -> None:
        rules = _mapping(section)
        self.name = name
        self.members = [str(member) for member in _list(rules.get("members"))]
        self.swap = rules.get("swap", True) is not False
        self.exclusive = rules.get("exclusive", True) is not False
        self.persistent = rules.get("persistent", False) is True


def _are_apart(one: _Group, other: _Group) -> bool:
    """Whether a model of one and a model of the other are never loaded at once.

    Of two groups only one of which unloads the other, models are taken to be apart: what is loaded
    beside the others depends on the order there.
    """
    if one is other:
        return one.swap
    return (one.exclusive and not other.persistent) or (other.exclusive and not one.persistent)


def _group_name(limit: Limit, groups: Mapping[str, object], number: int) -> str:
    for name, section in groups.items():
        if [str(member) for member in _list(_get(section, "members"))] == list(limit.members):
            return name
    return f"apart-{number}"


def _alias(model: DraftModel, name: str, params: Mapping[str, object]) -> object:
    """An alias as the configuration has it: just a name, or one with request fields of its own."""
    told = _allowed(model, params, f"filters.setParamsByID.{name}")
    return {"name": name, "set": told} if told else name


def _allowed(model: DraftModel, params: Mapping[str, object], place: str) -> dict[str, object]:
    """The request fields that a configuration may set or drop; a note of the others."""
    for name in params.keys() & set(ASKED):
        model.notes.append(f"{place}: {name} (it is what a request is about)")
    return {name: value for name, value in params.items() if name not in ASKED}


def _command(model: DraftModel, get: Callable[..., object]) -> None:
    """How it is started, found and stopped."""
    model.keys["cmd"] = _command_line(str(get("cmd", True)))
    if env := _list(get("env", True)):
        pairs = (str(line).partition("=") for line in env)
        model.keys["env"] = {name: value for name, _, value in pairs}
    proxy = str(get("proxy", True) or PROXY)
    if proxy != PROXY:
        model.keys["url"] = proxy
    ready = str(get("checkEndpoint", True) or READY)
    if ready != READY:
        model.keys["ready"] = None if ready == "none" else "/" + ready.lstrip("/")
    if stop := get("cmdStop", True):
        model.keys["stop_cmd"] = _command_line(str(stop)).replace("\n", " ")


def _command_line(text: str) -> str:
    """Without comments and without the marks of lines that go on."""
    lines = [line.rstrip() for line in _without_comments(text).splitlines()]
    lines = [line.removesuffix("\\").rstrip() if line.endswith("\\") else line for line in lines]
    return "\n".join(line.strip() for line in lines if line.strip())


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _matters(key: str, value: object) -> bool:
    return value not in (None, False, "", {}, []) and key not in ("startPort", "logLevel")


def _mapping(value: object) -> dict[str, object]:
    return {str(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else {}


def _list(value: object) -> list[object]:
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, list) else []


def _get(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else None


def _number(value: object, otherwise: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else otherwise  # type: ignore[return-value]


_OWN_NAMES = {
    "cmd": "cmd", "env": "env", "proxy": "url", "checkEndpoint": "ready", "cmdStop": "stop_cmd",
    "ttl": "ttl", "unloadTimeout": "stop_grace", "concurrencyLimit": "parallel",
    "aliases": "aliases", "description": "description", "useModelName": "upstream_model",
    "unlisted": "unlisted",
}  # fmt: skip
_TOP_KEYS = {
    "models": "models",
    "apiKeys": "api_keys",
    "globalTTL": "defaults",
    "groups": "groups",
    "matrix": "groups",
    "routing": "groups",
}
_WHY = {
    "metadata": " (/v1/models shows what swapper knows itself)",
    "capabilities": " (a worker says itself what it can)",
    "timeouts": " (queue_timeout and load_timeout say how long to wait)",
    "sendLoadingState": " (defaults.loading_text says it for all models)",
}
_ONE_AT_A_TIME = "One model at a time, as llama-swap ran them. Without this line as many stay loaded as memory allows."
_AS_THERE = (
    "Models that llama-swap kept apart. Without these lines as many stay loaded as memory allows."
)


def problems_of(draft: Draft) -> Iterator[str]:
    """What could not be carried over, for the terminal."""
    for path, note in draft.left_out():
        yield f"{dotted(path)}: {note}" if path else note
