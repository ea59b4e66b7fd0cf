"""How large an image is, by the first bytes of its file. Pure; nothing is decoded for it."""

from __future__ import annotations

import struct

KINDS = "PNG, JPEG, GIF and BMP"
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # JPEG's markers that tell the size
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # and those that have no length


def dimensions(file: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None for what is no image of one of `KINDS`."""
    try:
        if file.startswith(b"\x89PNG\r\n\x1a\n") and file[12:16] == b"IHDR":
            return _sound(*struct.unpack_from(">II", file, 16))
        if file.startswith((b"GIF87a", b"GIF89a")):
            return _sound(*struct.unpack_from("<HH", file, 6))
        if file.startswith(b"\xff\xd8\xff"):
            return _jpeg(file)
        if file.startswith(b"BM"):
            return _bmp(file)
    except (struct.error, IndexError):
        pass
    return None


def _sound(width: int, height: int) -> tuple[int, int] | None:
    return (width, abs(height)) if width > 0 and height != 0 else None


def _bmp(file: bytes) -> tuple[int, int] | None:
    (size,) = struct.unpack_from("<I", file, 14)
    return _sound(*struct.unpack_from("<HH" if size == 12 else "<ii", file, 18))


def _jpeg(file: bytes) -> tuple[int, int] | None:
    place = 2
    while True:
        while file[place] != 0xFF:
            place += 1
        while file[place] == 0xFF:
            place += 1
        marker, place = file[place], place + 1
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", file, place + 3)
            return _sound(width, height)
        if marker == 0xD9:
            return None
        if marker not in _ALONE and marker != 0:
            (length,) = struct.unpack_from(">H", file, place)
            place += max(2, length)
