"""gpt-oss: an answer in messages, each with a channel and perhaps a recipient.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.weather
    <|constrain|>json<|message|>{"city": "Oslo"}<|call|>

Analysis is reasoning; final, and commentary to nobody, are content.
"""

from __future__ import annotations

import re

from backends.serving.tools.calls import Plain, Tools, Write, argument_rules, call_rules, literal
from backends.serving.tools.tape import Script, Tape

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", START)
MARKERS = (START, CHANNEL, MESSAGE, "<|constrain|>", "<|end|>", "<|call|>", "<|return|>")

_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=functions\.([^\s<]+)")


class HarmonyCalls(Plain):
    """What is to be written to force a call. Reading needs the whole answer: see `read_answer`."""

    starts = ()
    markers = MARKERS

    def read(self, tape: Tape, tools: Tools) -> Script[None]:
        """Never asked for: nothing starts calls."""
        yield from ()

    def rules(self, tools: Tools, write: Write) -> str:
        """As CallFormat says; several calls are several messages."""
        calls = []
        for index, tool in enumerate(tools):
            head = literal(f"commentary to=functions.{tool.name} ")
            calls.append(
                f'{write(CHANNEL)} {head} {write("<|constrain|>")} "json" {write(MESSAGE)} args_{index}'
            )
        separator = f'{write("<|call|>")} {write(START)} "assistant"'
        return "\n".join([*call_rules(calls, separator=separator), *argument_rules(tools)])


def read_answer(tape: Tape) -> Script[None]:
    """All messages to the end."""
    while True:
        if not (yield from tape.peek()):
            tape.content.keep_space()
            return
        header = yield from tape.accept(CHANNEL, START, " to=")
        if header:
            rest, marker = yield from tape.until(MESSAGE)
            if not marker:
                return
            header += rest
        yield from _read_body(tape, header)


def _read_body(tape: Tape, header: str) -> Script[None]:
    channel = _CHANNEL.search(header)
    recipient = _RECIPIENT.search(header)
    if recipient is not None:
        tape.begin_call(recipient[1])
        if (yield from tape.peek()) == "{":  # texts inside may hold what ends messages
            yield from tape.pass_json(tape.argue)
        yield from tape.pass_until(_ENDS, tape.argue, is_open=True)
        tape.end_call()
    elif channel is not None and channel[1] == "analysis":
        yield from tape.pass_until(_ENDS, tape.reasoning.say, is_open=True)
    else:
        yield from tape.pass_until(_ENDS, tape.content.say)
