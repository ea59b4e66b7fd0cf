"""Images as rows of embeddings, by llama.cpp's libmtmd and a projector file (`mmproj`).

`read` may run on any thread beside all others; the rest belongs to the thread that computes. Encoding takes
seconds on a CPU, so it has a thread of its own, and answers go on beside it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import weakref
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from backends.llamacpp import gguf_file, loader
from backends.llamacpp.binding import L, import_declarations, log
from backends.llamacpp.devices import pointers_to
from backends.llamacpp.failures import classified
from backends.llamacpp.loader import Loaded
from backends.llamacpp.sequence import ImageSpan, token_array
from backends.serving.engine import EngineError, SeenPrompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

M: Any = import_declarations("mtmd_cpp")

# Tokens of an image, where its size decides: encoding takes its time by their square, and a CPU is slow.
CPU_IMAGE_TOKENS = 512
SMALL, LARGE = 64, 8192  # sides of images to ask with how many tokens they take
MAX_KEPT_BYTES = 64 << 20  # of embeddings, for images that are run in parts or come again
# libmtmd hands what it cannot read to ffmpeg, taking it for a film. No client's bytes go there.
NO_PROGRAMS = b"/dev/null"

Key = tuple[str, bytes]  # a scope, and what a piece is made from
Tell = Callable[[Callable[[], None]], None]


def open_projector(loaded: Loaded, path: str) -> Projector:
    """The projector in `path` for the model; raises EngineError with a contract kind."""
    gguf_file.check(path)
    M.mtmd_helper_log_set(log.callback, None)
    pointer = _opened(loaded, path)
    if not M.mtmd_support_vision(pointer):
        M.mtmd_free(pointer)
        raise EngineError("unsupported", f"{os.path.basename(path)} encodes no images")
    in_one_step = bool(M.mtmd_decode_use_non_causal(pointer, None))
    step_tokens = int(loader.generation_params(loaded).n_ubatch) if in_one_step else None
    limit = _limit(loaded, step_tokens)
    if limit is not None and _tokens(pointer, LARGE) > max(limit, _tokens(pointer, SMALL)):
        M.mtmd_free(pointer)
        pointer = _opened(loaded, path, limit)
    return Projector(pointer, L.llama_model_n_embd_inp(loaded.pointer), step_tokens=step_tokens)


def _limit(loaded: Loaded, step_tokens: int | None) -> int | None:
    """Most tokens that an image shall take; None: the model's own limit."""
    limit = loaded.options.image_tokens
    if limit is None and not loader.is_offloading(loaded.options):
        limit = CPU_IMAGE_TOKENS
    limits = [number for number in (limit, step_tokens) if number is not None]
    return min(limits, default=None)


def _tokens(pointer: Any, side: int) -> int:
    """How many tokens an image of so many pixels a side takes, or its largest tile."""
    bitmap = M.mtmd_bitmap_init(side, side, None)  # without pixels: to be counted, not encoded
    part, chunks = M.mtmd_input_part(None, bitmap), _Chunks()
    parts = (ctypes.POINTER(M.mtmd_input_part) * 1)(ctypes.pointer(part))
    M.mtmd_tokenize_from_parts(pointer, chunks.pointer, parts, 1, False)
    M.mtmd_bitmap_free(bitmap)
    images = (chunk for chunk in chunks if _is_image(chunk))
    return max((int(M.mtmd_input_chunk_get_n_tokens(chunk)) for chunk in images), default=0)


def _opened(loaded: Loaded, path: str, image_tokens: int | None = None) -> Any:
    """libmtmd's context. `image_tokens`: most tokens of one image, where its size decides."""
    options = loaded.options
    params = M.mtmd_context_params_default()
    params.use_gpu = loader.is_offloading(options)
    params.device = pointers_to(options.devices)[0] if options.devices else None
    params.n_threads = options.threads
    params.flash_attn_type = options.flash_attention
    params.image_max_tokens = image_tokens or -1
    params.print_timings = False
    lines = log.record()
    pointer = M.mtmd_init_from_file(os.fsencode(path), loaded.pointer, params)
    log.stop()
    if not pointer:
        raise classified(path, lines)
    return pointer


class _Chunks:
    """libmtmd's list of texts and images that a prompt is made of; freed with the last who holds it."""

    def __init__(self) -> None:
        self.pointer = M.mtmd_input_chunks_init()
        weakref.finalize(self, M.mtmd_input_chunks_free, self.pointer)

    def __iter__(self) -> Iterator[Any]:
        for index in range(M.mtmd_input_chunks_size(self.pointer)):
            yield M.mtmd_input_chunks_get(self.pointer, index)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """An image, or one tile of it, scaled and ready to be encoded."""

    chunks: _Chunks  # what `pointer` is a part of
    pointer: Any
    key: bytes
    length: int

    def stand_ins(self) -> array[int]:
        """Negative numbers that are this piece's own, as far as its hash goes: 31 bits for each row,
        and a piece is taken for another's only where all of its rows agree."""
        words = hashlib.shake_128(self.key).digest(4 * self.length)
        return array("i", (np.frombuffer(words, np.int32) | np.int32(-(2**31))).tobytes())


class Projector:
    """The encoder of one model's images. What it made of the last ones is kept, for each scope apart."""

    def __init__(self, pointer: Any, width: int, *, step_tokens: int | None) -> None:
        self._pointer = pointer
        self._width = width  # of a row
        # Rows of one image that may be run together; None: they need not be run together.
        self._step_tokens = step_tokens
        self._has_grid = bool(M.mtmd_decode_use_mrope(pointer))
        self._kept: OrderedDict[Key, NDArray[np.float32]] = OrderedDict()
        self._failed: set[Key] = set()
        self._encoding: set[Key] = set()
        self._encoder = ThreadPoolExecutor(1, "encode")
        self._tell: Tell = lambda message: message()

    def attach(self, tell: Tell) -> None:
        """From now on `tell` has the computing thread run a message, and wakes it."""
        self._tell = tell

    # A prompt

    def read(self, parts: Sequence[str | bytes], *, add_special: bool) -> SeenPrompt:
        """As CanSee says."""
        chunks = _Chunks()
        with ExitStack() as held:
            given = [self._part(part, held) for part in parts]
            pointers = (ctypes.POINTER(M.mtmd_input_part) * len(given))(
                *(ctypes.pointer(part) for part in given)
            )
            if M.mtmd_tokenize_from_parts(
                self._pointer, chunks.pointer, pointers, len(given), add_special
            ):
                raise EngineError("bad_request", "The model cannot take an image of this shape")
        files = Counter(hashlib.sha256(part).hexdigest() for part in parts if type(part) is bytes)
        return self._prompt(chunks, files)

    def _part(self, part: str | bytes, held: ExitStack) -> Any:
        if isinstance(part, str):
            data = part.encode("utf-8", "replace")
            text = M.mtmd_input_text(data, len(data), False, True)
            return M.mtmd_input_part(ctypes.pointer(text), None)
        return M.mtmd_input_part(None, self._bitmap(part, held))

    def _bitmap(self, data: bytes, held: ExitStack) -> Any:
        """The decoded image, freed with `held`."""
        options = M.mtmd_helper_init_opt_default()
        options.video_params.ffmpeg_bin_dir = NO_PROGRAMS
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        found = M.mtmd_helper_bitmap_init_from_buf_wrapper(
            self._pointer, buffer, len(data), False, options
        )
        if found.bitmap:
            held.callback(M.mtmd_bitmap_free, found.bitmap)
        if found.video_ctx:
            held.callback(M.mtmd_helper_video_free, found.video_ctx)
        if not found.bitmap or found.video_ctx or M.mtmd_bitmap_is_audio(found.bitmap):
            raise EngineError("bad_request", "An image is broken: it cannot be decoded")
        return found.bitmap

    def _prompt(self, chunks: _Chunks, files: Counter[str]) -> SeenPrompt:
        """`files`: how often each image is in the prompt, by its hash."""
        tokens, images = token_array(), []
        names = [(M.mtmd_input_chunk_get_id(chunk) or b"").decode() for chunk in chunks]
        tiles, met = Counter(names), Counter[str]()
        for chunk, name in zip(chunks, names, strict=True):
            if not _is_image(chunk):
                tokens.extend(_text_tokens(chunk))
                continue
            length = int(M.mtmd_input_chunk_get_n_tokens(chunk))
            tile = met[name] % (tiles[name] // files[name])
            met[name] += 1
            piece = Piece(chunks, chunk, f"{name} {tile} {length}".encode(), length)
            images.append(self._span(piece, len(tokens)))
            tokens.extend(piece.stand_ins())
        if images and images[-1].end == len(tokens):
            raise EngineError("bad_request", "A prompt cannot end with an image")
        return SeenPrompt(tokens, images)

    def _span(self, piece: Piece, start: int) -> ImageSpan:
        in_one_step = bool(M.mtmd_decode_use_non_causal(self._pointer, piece.pointer))
        if in_one_step and piece.length > (self._step_tokens or 0):
            raise EngineError(
                "bad_request",
                f"An image takes {piece.length} tokens, and this model must run them together; "
                f"its ubatch is {self._step_tokens}",
            )
        reach = int(M.mtmd_input_chunk_get_n_pos(piece.pointer))
        return ImageSpan(start, piece.length, reach, in_one_step, piece)

    # A step

    def rows(
        self, content: object, scope: str, *, position: int, start: int, length: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Rows [length, width] of a piece from row `start` on, and their positions [1 or 4, length],
        where the piece begins at `position`. Raises EngineError where it cannot be encoded.

        Only once `has_rows`, and in the same step.
        """
        piece = cast(Piece, content)
        key = scope, piece.key
        if key in self._failed:
            self._failed.remove(key)
            raise EngineError("internal", "The image cannot be encoded; the worker's log says why")
        self._kept.move_to_end(key)
        part = slice(start, start + length)
        positions = self._positions(piece, position)[:, part]
        return self._kept[key][part], np.ascontiguousarray(positions)

    def _positions(self, piece: Piece, position: int) -> NDArray[np.int32]:
        if not self._has_grid:
            return np.arange(position, position + piece.length, dtype=np.int32)[None, :]
        found = (M.mtmd_decoder_pos * piece.length)()
        tokens = M.mtmd_input_chunk_get_tokens_image(piece.pointer)
        M.mtmd_helper_image_get_decoder_pos(tokens, position, found)
        by_token = np.frombuffer(found, np.int32).reshape(piece.length, 4)
        return by_token[:, [0, 2, 1, 3]].T  # t, x, y, z as llama.cpp orders them: t, y, x, z

    def has_rows(self, content: object, scope: str) -> bool:
        """Whether `rows` has something to say of the piece; if not, it will."""
        piece = cast(Piece, content)
        key = scope, piece.key
        if key in self._kept or key in self._failed:
            return True
        if key not in self._encoding:
            self._encoding.add(key)
            encoded = self._encoder.submit(self._encode, piece)
            encoded.add_done_callback(lambda rows: self._tell(partial(self._take, key, rows)))
        return False

    def _encode(self, piece: Piece) -> NDArray[np.float32] | None:
        """On the encoder's thread; None where it fails."""
        if M.mtmd_encode_chunk(self._pointer, piece.pointer):
            return None
        found = M.mtmd_get_output_embd(self._pointer)
        rows = np.ctypeslib.as_array(found, (piece.length, self._width))
        return rows.astype(np.float32, copy=True)

    def _take(self, key: Key, encoded: Future[NDArray[np.float32] | None]) -> None:
        self._encoding.remove(key)
        rows = None if encoded.exception() else encoded.result()
        if rows is None:
            self._failed.add(key)
            return
        self._kept[key] = rows
        while len(self._kept) > 1 and self._num_kept_bytes > MAX_KEPT_BYTES:
            self._kept.popitem(last=False)

    @property
    def _num_kept_bytes(self) -> int:
        return sum(rows.nbytes for rows in self._kept.values())

    def free(self) -> None:
        """Give everything back. Prompts that were read may be held longer."""
        self._encoder.shutdown(cancel_futures=True)
        if self._pointer:
            M.mtmd_free(self._pointer)
            self._pointer = None


def _is_image(chunk: Any) -> bool:
    return bool(M.mtmd_input_chunk_get_type(chunk) == M.MTMD_INPUT_CHUNK_TYPE_IMAGE)


def _text_tokens(chunk: Any) -> list[int]:
    count = ctypes.c_size_t()
    tokens = M.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    return list(tokens[: count.value])
