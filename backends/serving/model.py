"""A loaded model with what serving makes of it, each part built when it is first needed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import cached_property

from backends.serving.chat import ChatTemplate
from backends.serving.constraint import Compiler, GrammarError
from backends.serving.encoder import Encoder
from backends.serving.engine import Engine, Grammar
from backends.serving.errors import bad_request
from backends.serving.tools import Dialect


class ServedModel:
    """The engine, and its text side."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.encoder = Encoder(engine.tokenizer)
        self._compiler = Compiler(engine.tokenizer, engine.info.vocab_size)

    @cached_property
    def template(self) -> ChatTemplate:
        """The model's chat template, compiled. Raises RequestError for one that cannot be read."""
        return ChatTemplate(self.engine.info)

    @property
    def dialect(self) -> Dialect:
        """How the model answers."""
        return self.template.dialect

    @cached_property
    def controls(self) -> Mapping[str, int]:
        """Those of the dialect's markers that are control tokens."""
        token = self._compiler.vocabulary.control_token
        found = {marker: token(marker) for marker in self.dialect.markers}
        return {marker: id for marker, id in found.items() if id is not None}

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens by which the model ends an answer."""
        ends = self.engine.tokenizer.ends_answer
        return frozenset(filter(ends, range(self.engine.info.vocab_size)))

    async def compile(self, rules: str, param: str) -> Grammar:
        """A grammar for an answer; one that cannot be followed is the fault of `param`."""
        try:
            return await self._compiler.compile(rules)
        except GrammarError as error:
            raise bad_request(f"{param} cannot be followed: {readable(error)}", param) from None

    async def prepare(self) -> None:
        """Do ahead what the first grammar would have to wait for."""
        await self._compiler.prepare()

    async def close(self) -> None:
        """Wait for the threads that read the model's vocabulary."""
        await asyncio.gather(self.encoder.close(), self._compiler.close())


_PLACE = re.compile(r"^(?:at )?\d+\(\d+\): ")  # in a grammar that the client never saw
_LISTING = re.compile(r" \d+ \| .*", re.DOTALL)


def readable(error: GrammarError) -> str:
    """What it says, without what the client never saw."""
    reason = _LISTING.sub("", _PLACE.sub("", str(error)))
    reason = reason.removeprefix("failed to compile JSON schema: ").partition(". Enable ")[0]
    return reason[:300]
