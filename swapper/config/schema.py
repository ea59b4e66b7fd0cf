"""The keys of a configuration file: their names, types and one sentence each.

Checks what can be checked of one value by itself. What needs other keys, the disk or the machine is
for `load` and `planning`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from swapper.config.fields import (
    Budget,
    CacheType,
    Count,
    Device,
    Duration,
    FlagOrAuto,
    From0,
    From1,
    GpuBudget,
    ListenList,
    MaxWait,
    Memory,
    RateLimit,
    Size,
    Text,
    Words,
)
from swapper.config.listen import Listen

ASKED = ("model", "messages", "prompt", "input", "stream")


class _Section(BaseModel):
    # Only `ConfigFile` checks anything by itself; the others are built as its parts, when it is first used.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, defer_build=True
    )


Scope: TypeAlias = Literal["inference", "admin"]


class ApiKeyEntry(_Section):
    """A client's key, written here or kept in a file of its own."""

    name: Text | None = Field(default=None, description="who holds the key; it is what logs show")
    key: Text | None = Field(default=None, description="the key")
    file: Text | None = Field(default=None, description="a file that holds the key")
    scopes: list[Scope] = Field(
        default=["inference", "admin"],
        min_length=1,
        description="what it is for: asking models, or looking after the server",
    )
    models: list[Text] = Field(
        default_factory=list, description="the models it is for; none named: all of them"
    )
    rate: RateLimit | None = Field(
        default=None, description="how often it may ask, such as 60/m; others wait or come again"
    )
    priority: int = Field(default=0, description="its requests go before those of lower ones")


ApiKeyItem: TypeAlias = Annotated[
    ApiKeyEntry,
    BeforeValidator(
        lambda value: {"key": value} if isinstance(value, str) else value,
        json_schema_input_type=Text | ApiKeyEntry,
    ),
]


class MemorySection(_Section):
    """How much memory all models together may take."""

    gpu: GpuBudget = Field(
        default="auto", description="of every GPU, or by device; auto: all but a reserve"
    )
    host: Budget = Field(
        default="auto", description="of the machine's memory; auto: all but a reserve"
    )


class CaptureSection(_Section):
    """How much of requests and answers is kept in memory for whoever looks after the server."""

    requests: Count = Field(default=100, description="the last so many, with their bodies")
    memory: Size = Field(default=32 * 1024 * 1024, description="of all of them together")


class GroupSection(_Section):
    """Models of which only so many may be loaded at once."""

    members: list[Text] = Field(min_length=1, description="names of models")
    max_loaded: Count = Field(default=1, description="how many of them at once")


class DefaultsSection(_Section):
    """What holds for every model that says nothing else."""

    ttl: Duration = Field(
        default=600.0, description="idle time before a model is unloaded; 0: never"
    )
    max_wait: MaxWait = Field(
        default="auto", description="how long others' turns may keep a request waiting"
    )
    queue_timeout: Duration = Field(
        default=600.0, description="a request that waited so long is refused"
    )
    queue_limit: Count = Field(default=1000, description="requests that may wait for one model")
    load_timeout: Duration = Field(default=300.0, description="a load that takes longer has failed")
    stop_grace: Duration = Field(default=10.0, description="time to end orderly, before force")
    keepalive_after: Duration = Field(
        default=2.0, description="a stream that waited so long gets a sign of life, and a 200"
    )
    loading_text: bool = Field(
        default=False,
        description="the sign of life is a sentence of reasoning that says why it waits",
    )


def _settable(fields: Iterable[str]) -> None:
    for name in fields:
        if name in ASKED:
            raise ValueError(f"{name} is what a request is about; it stays as the client says")


def _settable_values(value: dict[str, object]) -> dict[str, object]:
    _settable(value)
    return value


def _settable_names(value: list[str]) -> list[str]:
    _settable(value)
    return value


FieldValues: TypeAlias = Annotated[dict[str, object], AfterValidator(_settable_values)]
FieldNames: TypeAlias = Annotated[list[Text], AfterValidator(_settable_names)]


class _Adjusted(_Section):
    """What is said of request fields."""

    set: FieldValues = Field(
        default_factory=dict, description="request fields that are so, whatever the client says"
    )
    default: FieldValues = Field(
        default_factory=dict, description="request fields where the client says nothing"
    )
    drop: FieldNames = Field(
        default_factory=list, description="request fields that are left out if a client sends them"
    )
    system: Text | None = Field(
        default=None, description="goes before the system message of every chat"
    )


class AliasEntry(_Adjusted):
    """Another name for a model, maybe with request fields of its own. Nothing is loaded for it."""

    name: Text = Field(description="what clients call it")


def _alias(value: object) -> object:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict | AliasEntry):
        raise ValueError("must be text; quote it if the text is meant")
    return value


AliasItem: TypeAlias = Annotated[
    AliasEntry, BeforeValidator(_alias, json_schema_input_type=Text | AliasEntry)
]


class _Model(_Adjusted):
    aliases: list[AliasItem] = Field(default_factory=list, description="other names for the model")
    description: str | None = Field(default=None, description="a sentence for people")
    parallel: Count = Field(default=8, description="requests at once; the proxy queues beyond it")
    ttl: Duration | None = Field(
        default=None, description="idle time before it is unloaded; 0: never"
    )
    max_wait: MaxWait | None = Field(
        default=None, description="how long others' turns may keep a request waiting"
    )
    queue_timeout: Duration | None = Field(
        default=None, description="a request that waited so long is refused"
    )
    queue_limit: Count | None = Field(default=None, description="requests that may wait for it")
    load_timeout: Duration | None = Field(
        default=None, description="a load that takes longer has failed"
    )
    stop_grace: Duration | None = Field(
        default=None, description="time to end orderly, before force"
    )
    pin: bool = Field(default=False, description="never moved out for another model")
    priority: int = Field(default=0, description="its requests and its turn go before lower ones")
    role: Literal["chat", "embedding", "completion"] = Field(
        default="chat", description="chat models move no embedding or completion model out"
    )
    preload: bool = Field(default=False, description="loaded at the start")


class Lora(_Section):
    """An adapter laid over the model."""

    path: Text = Field(description="the adapter's GGUF file")
    scale: float = Field(default=1.0, description="how strongly it counts")


LoraItem: TypeAlias = Annotated[
    Lora,
    BeforeValidator(
        lambda value: {"path": value} if isinstance(value, str) else value,
        json_schema_input_type=Text | Lora,
    ),
]


class LlamaCppModel(_Model):
    """A GGUF file, served by llama.cpp on CPU, GPU or both."""

    engine: Literal["llamacpp"] = "llamacpp"
    path: Text = Field(description="the GGUF file; of a split one, the first part")
    context: From1 = Field(
        default="auto", description="longest prompt plus answer of one request, in tokens"
    )
    kv_tokens: Count | None = Field(
        default=None, description="KV pool that all requests share; default: context"
    )
    gpu_layers: From0 = Field(default="auto", description="layers on GPUs; auto: as many as fit")
    devices: list[Device] | None = Field(default=None, description="GPUs it may use; default: all")
    threads: From1 = Field(default="auto", description="CPU threads; auto: its share of the cores")
    flash_attention: FlagOrAuto = Field(
        default="auto", description="attention without its large matrix"
    )
    cache_type_k: CacheType = Field(default="f16", description="how keys are kept in the KV cache")
    cache_type_v: CacheType = Field(
        default="f16", description="how values are kept in the KV cache"
    )
    batch: Count | None = Field(default=None, description="most tokens of one step")
    ubatch: Count | None = Field(default=None, description="most tokens computed at once")
    mmap: bool = Field(default=True, description="map the file instead of reading it")
    mlock: bool = Field(default=False, description="keep it from being swapped to disk")
    lora: list[LoraItem] = Field(default_factory=list, description="adapters laid over it")
    mmproj: Text | None = Field(
        default=None, description="the GGUF file that lets it see: an encoder of images"
    )
    image_tokens: Count | None = Field(
        default=None,
        description="most tokens of an image, where its size decides; default: 512 on a CPU",
    )
    memory: Memory | None = Field(
        default=None, description="reserved for it, instead of the estimate"
    )


class PagedModel(_Model):
    """A folder of safetensors, served by the paged engine to many at once, on a GPU or on the CPU."""

    engine: Literal["paged"] = "paged"
    path: Text = Field(description="the folder, with config.json, tokenizer.json and *.safetensors")
    context: From1 = Field(
        default="auto", description="longest prompt plus answer of one request, in tokens"
    )
    kv_tokens: Count | None = Field(
        default=None, description="KV cache that all requests share; default: context"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="what it computes in; auto: the model's own, float32 on a CPU"
    )
    devices: list[Device] | None = Field(
        default=None, description="GPUs it may use one of; []: the CPU; default: all"
    )
    threads: From1 = Field(default="auto", description="CPU threads; auto: its share of the cores")
    batch: Count | None = Field(default=None, description="most tokens of one step")
    pooling: Literal["none", "mean", "cls", "last"] | None = Field(
        default=None, description="how embeddings are made; default: as the model says"
    )
    memory: Memory | None = Field(
        default=None, description="reserved for it, instead of the estimate"
    )


class EchoModel(_Model):
    """No model at all: answers with what it was told, at a rate it is told. For tests."""

    engine: Literal["echo"]
    context: Count | None = Field(default=None, description="longest prompt plus answer, in tokens")
    options: dict[str, object] = Field(default_factory=dict, description="how it shall behave")
    memory: Memory | None = Field(default=None, description="reserved for it")


class CommandModel(_Model):
    """Any server that speaks OpenAI's API, started by a command."""

    engine: Literal["command"] = "command"
    # Such servers queue or batch by themselves, and what they take at once is not known here.
    parallel: Count = Field(default=64, description="requests at once; the proxy queues beyond it")
    cmd: Words = Field(description="its command line; ${port} and ${model} are filled in; no shell")
    env: dict[str, str] = Field(default_factory=dict, description="environment on top of swapper's")
    cwd: Text | None = Field(default=None, description="folder it runs in")
    stop_cmd: Words | None = Field(
        default=None, description="ends what does not end with its process"
    )
    url: Text | None = Field(
        default=None, description="where it answers; default: http://127.0.0.1:${port}"
    )
    ready: str | None = Field(
        default="/health", description="path that answers 200 when ready; null: port is open"
    )
    api_key: Text | None = Field(default=None, description="the key it asks for")
    memory: Memory | None = Field(default=None, description="reserved for it")
    upstream_model: Text | None = Field(default=None, description="the name it goes by there")


class UrlModel(_Model):
    """A server that runs already, here or elsewhere."""

    engine: Literal["url"] = "url"
    # Such servers queue or batch by themselves, and what they take at once is not known here.
    parallel: Count = Field(default=64, description="requests at once; the proxy queues beyond it")
    url: Text = Field(description="its address, without /v1")
    api_key: Text | None = Field(default=None, description="the key it asks for")
    upstream_model: Text | None = Field(default=None, description="the name it goes by there")


ModelSection: TypeAlias = LlamaCppModel | PagedModel | EchoModel | CommandModel | UrlModel
ENGINES: dict[str, type[ModelSection]] = {
    "llamacpp": LlamaCppModel,
    "paged": PagedModel,
    "echo": EchoModel,
    "command": CommandModel,
    "url": UrlModel,
}


def engine_of(section: Mapping[str, object]) -> str | None:
    """The engine of a model: the one that it names, or the only one that what it has can be meant for."""
    if "engine" in section:
        return str(section["engine"])
    path = section.get("path")
    if isinstance(path, str):
        return "llamacpp" if path.lower().endswith(".gguf") else "paged"
    return next(
        (name for key, name in (("cmd", "command"), ("url", "url")) if key in section), None
    )


def _with_engine(section: object) -> object:
    if isinstance(section, Mapping) and "engine" not in section:
        engine = engine_of(section)
        return section if engine is None else {"engine": engine, **section}
    return section


class ConfigFile(_Section):
    """A configuration of swapper."""

    listen: ListenList = Field(
        default=[Listen("127.0.0.1", 8080)],
        description="host:port or the path of a Unix socket; or a list",
    )
    api_keys: list[ApiKeyItem] = Field(
        default_factory=list, description="keys that clients may show; none: local clients only"
    )
    key_in_path: bool = Field(
        default=False,
        description="take a key from /key/KEY/v1/... too, where headers cannot be set",
    )
    insecure: bool = Field(default=False, description="listen beyond this machine without any key")
    allowed_origins: list[Text] = Field(
        default_factory=list,
        description="web pages that may use it, beside local ones, such as https://chat.example",
    )
    allowed_hosts: list[Text] = Field(
        default_factory=list, description="names this server is called by, beside this machine's"
    )
    capture: CaptureSection | None = Field(
        default=None,
        description="keep the bodies of the last requests in memory, for /ui; without it none is",
    )
    memory: MemorySection = Field(
        default=MemorySection(), description="memory for all models together"
    )
    max_loaded: Annotated[int, Field(ge=0)] = Field(
        default=0, description="models loaded at once; 0: as memory allows"
    )
    groups: dict[str, GroupSection] = Field(
        default_factory=dict, description="sets of models with a limit of their own"
    )
    defaults: DefaultsSection = Field(
        default=DefaultsSection(), description="for every model that says nothing else"
    )
    models: dict[
        str, Annotated[ModelSection, Field(discriminator="engine"), BeforeValidator(_with_engine)]
    ] = Field(min_length=1, description="what is served, by name")


def config_schema() -> dict[str, object]:
    """The JSON schema of a configuration file, for editors."""
    schema = ConfigFile.model_json_schema()
    models = schema["properties"]["models"]["additionalProperties"]
    # A model that does not name its engine fits more than one; pydantic is told before which it is.
    models["anyOf"] = models.pop("oneOf")
    del models["discriminator"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
