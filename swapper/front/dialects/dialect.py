"""What `front/translated.py` needs of a dialect.

To add one: write a `Translation` (a `StreamTranslation`, where answers may be streams) that makes an OpenAI body of a client's request and takes the answer
back, chunk by chunk or whole; write a `Dialect` whose `read` makes one of a body and whose `refused`
words an error; and give the `Dialect` a path among the `Translator`'s, with `Translator._infer` to serve
it. Keep-alives, true statuses until the first byte and errors in the stream after it, clients that
leave, a second try on a fresh worker, timings and logs are the handler's, for all dialects alike.

The order of calls, for one request: `read`; `body` (by the handler); `waiting` while nothing has come,
if the client streams; `granted` when a worker took it (again, if that one died before it answered);
then, of a stream, `chunk` for each chunk and `end` or `broken`, or else `whole`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from swapper.front.refusal import Refusal

Json: TypeAlias = dict[str, Any]

CHAT: Final = "/v1/chat/completions"
EVENT_STREAM: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a request beside its body."""

    request_id: str  # the client's own, maybe, and then not unique
    unique: str  # fit for ids
    key: str  # whose request it is; empty on an open server
    clock: Callable[[], float]  # seconds since 1970
    elapsed: Callable[[], float]  # seconds since it came, on a clock that nobody sets


@dataclass(frozen=True, slots=True)
class Granted:
    """A worker has been found. Times in seconds, of this request."""

    model: str  # the configured name
    engine: str
    queue_s: float  # waited in all; of it
    load_s: float  # the worker loaded


class Translation(ABC):
    """One request and its answer, used once.

    `model` is the name the client gave, `path` where the body goes on the worker, `body` OpenAI's
    request without `model`. Without a `path` nothing is asked: the model is to be loaded, or, with
    `stays_s` 0, to go; `end`, or `whole` with nothing, then tells that it was done.
    """

    model: str
    path: str | None = CHAT
    body: Json
    stays_s: float | None = None  # idle time before unload, from now on; None: as it was

    @property
    def streamed(self) -> StreamTranslation | None:
        """What tells the answer as a stream, where the client wants one: the worker is to stream too."""
        return None

    def known_as(self, names: Iterable[str]) -> str:
        """The one of the configured `names` that the client means by `model`."""
        return self.model

    def granted(self, granted: Granted) -> None:
        """A worker is about to be asked."""
        return

    @abstractmethod
    def whole(self, answer: Json) -> object:
        """A whole answer of OpenAI's as the JSON value the client gets. KeyError, TypeError,
        AttributeError, ValueError and IndexError are taken for an answer that cannot be read."""


class StreamTranslation(Translation):
    """One whose answer may be a stream. `stream` says whether the client wants that."""

    stream: bool

    @property
    def streamed(self) -> StreamTranslation | None:
        return self if self.stream else None

    def waiting(self) -> bytes:
        """What keeps a client that has nothing yet; called every few seconds."""
        return b": waiting\n\n"

    @abstractmethod
    def chunk(self, chunk: Json) -> bytes:
        """One chunk of OpenAI's stream as bytes of the client's; may be nothing. Raises as `whole`
        does. Called in their order, without [DONE]."""

    @abstractmethod
    def end(self) -> bytes:
        """The last bytes of a stream that is complete."""

    @abstractmethod
    def broken(self, refusal: Refusal, request_id: str) -> bytes:
        """The last bytes of a stream that fails: an error, and nothing that a client takes for the
        end of an answer. Bytes may have been sent before, or none."""


class Dialect(Protocol):
    """One route's words. Stateless, but for what clients ask to be kept."""

    @property
    def stream_type(self) -> str:
        """The content type of streams. Comments with timings go into event streams only."""
        ...

    @property
    def id_header(self) -> str:
        """Where clients look for the request's id, beside `x-request-id`."""
        ...

    def read(self, body: bytes, asked: Asked) -> Translation:
        """A client's request; raises BadRequest (or another SwapperError) with what is wrong."""
        ...

    def refused(self, refusal: Refusal, request_id: str) -> object:
        """An error as the JSON value of an answer of its own."""
        ...


class CountsTokens(Protocol):
    """A dialect with a route on which clients ask how many tokens a prompt has."""

    def read_count(self, body: bytes, asked: Asked) -> tuple[str, Json]:
        """The model's name, and the part of a chat's body that makes its prompt; raises BadRequest."""
        ...

    def counted(self, tokens: int) -> Json:
        """The answer."""
        ...
