"""`python -m backends.serving.count`: counts the tokens of chats, for any model, without its weights.

One JSON object a line on standard input, {"engine", "options", "chat"}: a worker's options, and the body
of a chat completion. One a line on standard output, in the same order: {"tokens": n}, or {"kind", "error",
"param"} where `kind` is a failure of the worker contract or `bad_request`. It ends with its input.

Every engine that counts has a module `counting` with `open_vocabulary(options)`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from backends.serving.chat import ChatTemplate, chat_text
from backends.serving.engine import EngineError, ModelInfo, Tokenizer
from backends.serving.errors import RequestError, bad_request
from backends.serving.pictures import with_marks
from backends.serving.requests import ChatRequest, decode

MOST_OPEN = 8  # vocabularies kept


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What an engine's `open_vocabulary` gives. `info` has no more than templates need."""

    info: ModelInfo
    tokenizer: Tokenizer
    close: Callable[[], None] = _nothing


class Counter:
    """Owner of the vocabularies that are open."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[Vocabulary, ChatTemplate]] = OrderedDict()

    def answer(self, line: str) -> dict[str, Any]:
        """One answer to one line."""
        try:
            asked = json.loads(line)
            chat = decode(json.dumps(asked["chat"]).encode(), ChatRequest)
            return {"tokens": self._count(asked["engine"], asked["options"], chat)}
        except RequestError as error:
            return {"kind": "bad_request", "error": error.message, "param": error.param}
        except EngineError as error:
            return {"kind": error.kind, "error": error.reason, "param": None}

    def _count(self, engine: str, options: dict[str, Any], chat: ChatRequest) -> int:
        vocabulary, template = self._vocabulary(engine, options)
        if vocabulary.info.sees and with_marks(chat)[1]:
            raise bad_request("Tokens of images are not counted without the model", "messages")
        text = chat_text(template, chat)
        bos = vocabulary.info.bos_token
        writes_bos = bool(bos) and text.startswith(bos)
        return len(
            vocabulary.tokenizer.encode(text, add_special=not writes_bos, parse_special=True)
        )

    def _vocabulary(self, engine: str, options: dict[str, Any]) -> tuple[Vocabulary, ChatTemplate]:
        name = f"{engine} {options.get('path', '')}"
        if name not in self._open:
            vocabulary = _opener(engine)(options)
            self._open[name] = vocabulary, ChatTemplate(vocabulary.info)
            if len(self._open) > MOST_OPEN:
                _, (oldest, _) = self._open.popitem(last=False)
                oldest.close()
        self._open.move_to_end(name)
        return self._open[name]


def _opener(engine: str) -> Callable[[dict[str, Any]], Vocabulary]:
    try:
        module = importlib.import_module(f"backends.{engine}.counting")
        opener: Callable[[dict[str, Any]], Vocabulary] = module.open_vocabulary
        return opener
    except ImportError:
        raise EngineError("unsupported", f"Tokens of engine {engine} cannot be counted.") from None


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    counter = Counter()
    for line in sys.stdin:
        answers.write(msgspec.json.encode(counter.answer(line)) + b"\n")


if __name__ == "__main__":
    from backends.serving.count import main as run  # so that engines see the same classes

    run()
