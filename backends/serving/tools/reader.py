"""An answer, as it comes, split into content, reasoning and calls."""

from __future__ import annotations

from backends.serving.tools import harmony
from backends.serving.tools.calls import CallFormat, Tools
from backends.serving.tools.dialect import Dialect, Thinking
from backends.serving.tools.tape import Cut, Heard, NoCall, Script, Tape


class AnswerReader:
    """Splits an answer, as it comes, into content, reasoning and calls."""

    def __init__(
        self,
        dialect: Dialect,
        tools: Tools,
        *,
        is_thinking: bool,
        max_calls: int | None = None,
    ) -> None:
        self._max_calls = max_calls
        self._tape = Tape()
        if dialect.calls is not None:
            self._tape.call_id = dialect.calls.call_id
        self._script = _script(self._tape, dialect, tools, is_thinking)
        self._is_plain = not self._advance()

    @property
    def num_calls(self) -> int:
        """Calls that have begun."""
        return self._tape.num_calls

    @property
    def is_done(self) -> bool:
        """As many calls as were allowed: the rest of the answer is not wanted."""
        return self._max_calls is not None and self._tape.num_whole_calls >= self._max_calls

    def push(self, text: str) -> Heard:
        """Take text; give what is now certain."""
        if self._is_plain:
            return Heard(text)
        self._tape.add(text)
        return self._hear()

    def finish(self) -> Heard:
        """The answer is over: give what was kept back."""
        if self._is_plain or self.is_done:
            return Heard()
        self._tape.is_over = True
        return self._hear()

    def _hear(self) -> Heard:
        self._is_plain = not self._advance()
        heard = self._tape.take()
        if self._is_plain:
            heard.content += self._tape.rest()
        return heard

    def _advance(self) -> bool:
        """Let the script read on; whether it wants more."""
        try:
            next(self._script)
        except StopIteration:
            return False
        return True


def _script(tape: Tape, dialect: Dialect, tools: Tools, is_thinking: bool) -> Script[None]:
    if dialect.is_harmony:
        yield from harmony.read_answer(tape)
        return
    if dialect.thinking is not None:
        is_whole = yield from _read_thinking(tape, dialect.thinking, is_thinking)
        if not is_whole:
            tape.rest()
            return
    if dialect.calls is not None and tools:
        yield from _read_calls(tape, dialect.calls, tools)


def _read_thinking(tape: Tape, thinking: Thinking, is_thinking: bool) -> Script[bool]:
    """False: the answer is over, and only the beginning of a marker may be left of it."""
    if not is_thinking:
        place = tape.mark()
        yield from tape.skip_space()
        if not (yield from tape.accept(thinking.begin)):
            tape.go_back(place)
            return True
        tape.forget()
    end = yield from tape.pass_until((thinking.end,), tape.reasoning.say, is_open=True)
    yield from tape.skip_space()
    return bool(end)


def _read_calls(tape: Tape, calls: CallFormat, tools: Tools) -> Script[None]:
    if calls.may_be_bare:
        place = tape.mark()
        if not (yield from _read_call(tape, calls, tools)):
            tape.go_back(place)
    starts = calls.starts
    while starts:
        start = yield from tape.pass_until(starts, tape.content.say)
        if not start:
            break
        place = tape.mark()
        if not (yield from _read_call(tape, calls, tools)):
            tape.go_back(place)
            tape.content.say(start)
    if not starts:
        tape.content.say((yield from tape.until_over()))
    tape.content.keep_space()


def _read_call(tape: Tape, calls: CallFormat, tools: Tools) -> Script[bool]:
    """False: these were no calls, and nothing has been heard of them."""
    before = tape.num_calls
    try:
        yield from calls.read(tape, tools)
    except (NoCall, Cut) as error:
        return tape.num_calls > before or (isinstance(error, Cut) and not calls.may_be_bare)
    finally:
        tape.forget()
    return True
