"""Server-sent events: read from a worker in whatever pieces they come, written for a client."""

from __future__ import annotations

from typing import Final

import msgspec

from swapper.front.dialects.dialect import Json

LONGEST_EVENT: Final = 16 * 1024 * 1024


class EventTooLong(ValueError):
    """A worker sends a line without end."""


class EventReader:
    """Gives the data of each event, once it is complete. Comments and other fields are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes; raises EventTooLong."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LONGEST_EVENT:
            raise EventTooLong("a line of the worker's stream does not end")
        return [data for line in lines if (data := self._line(line.removesuffix(b"\r")))]

    def _line(self, line: bytes) -> bytes | None:
        """The event's data, where the line ends one."""
        if not line:
            data, self._data = b"\n".join(self._data), []
            return data
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None


def event(content: Json) -> bytes:
    """An event named after its content's `type`."""
    return b"event: %b\ndata: %b\n\n" % (content["type"].encode(), msgspec.json.encode(content))
