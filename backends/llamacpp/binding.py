"""llama.cpp's C functions, at the lowest cost of importing and calling them.

- Only `llama_cpp.llama_cpp` (the ctypes declarations) is imported, and `llama_cpp.mtmd_cpp` for a model that
  takes images. The package's own `__init__` pulls in
  numpy, jinja2 and a server's worth of modules, which would triple the time to start.
- A call through `ctypes.CDLL` lets go of the interpreter lock, which is right for what takes long and
  costly for what does not: `quick` has the same functions with the lock held.
- C keeps no Python object alive: whoever hands a callback over must keep it. `LlamaLog` keeps itself.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def import_declarations(name: str) -> Any:
    """A module of the package: `llama_cpp`, or `mtmd_cpp` for images."""
    if "llama_cpp" in sys.modules:
        return importlib.import_module(f"llama_cpp.{name}")
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(
            "llama-cpp-python is not installed: pip install llm-swapper[llamacpp]"
        )
    package = ModuleType("llama_cpp")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["llama_cpp"] = package
    try:
        return importlib.import_module(f"llama_cpp.{name}")
    finally:
        del sys.modules["llama_cpp"]


L: Any = import_declarations("llama_cpp")


def _quick_twins() -> Any:
    library = ctypes.PyDLL(L._lib._name)
    signatures: dict[str, tuple[list[Any], Any]] = {
        "llama_get_logits_ith": ([ctypes.c_void_p, ctypes.c_int32], ctypes.c_void_p),
        "llama_get_embeddings_seq": ([ctypes.c_void_p, ctypes.c_int32], ctypes.c_void_p),
        "llama_vocab_is_eog": ([ctypes.c_void_p, ctypes.c_int32], ctypes.c_bool),
        "llama_vocab_get_text": ([ctypes.c_void_p, ctypes.c_int32], ctypes.c_char_p),
        "llama_token_to_piece": (
            [
                ctypes.c_void_p,
                ctypes.c_int32,
                ctypes.c_char_p,
                ctypes.c_int32,
                ctypes.c_int32,
                ctypes.c_bool,
            ],
            ctypes.c_int32,
        ),
        "llama_memory_seq_rm": ([ctypes.c_void_p] + [ctypes.c_int32] * 3, ctypes.c_bool),
        "llama_memory_seq_cp": ([ctypes.c_void_p] + [ctypes.c_int32] * 4, None),
        "llama_memory_seq_pos_min": ([ctypes.c_void_p, ctypes.c_int32], ctypes.c_int32),
        "llama_memory_seq_pos_max": ([ctypes.c_void_p, ctypes.c_int32], ctypes.c_int32),
    }
    for name, (arguments, result) in signatures.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


quick: Any = _quick_twins()

WARN, ERROR, CONTINUED = 3, 4, 5


class LlamaLog:
    """Where llama.cpp's log lines go: warnings to standard error, and all of them to whoever records."""

    def __init__(self) -> None:
        self._recorded: list[str] | None = None
        self._level = 0
        self.callback = L.llama_log_callback(self._take)

    def install(self) -> None:
        L.llama_log_set(self.callback, None)

    def record(self) -> list[str]:
        """Start recording; the list fills until the next call of `stop`."""
        self._recorded = []
        return self._recorded

    def stop(self) -> None:
        self._recorded = None

    def _take(self, level: int, text: bytes, _: object) -> None:
        if level != CONTINUED:
            self._level = level
        line = text.decode("utf-8", "replace")
        if self._recorded is not None:
            if level == CONTINUED and self._recorded:
                self._recorded[-1] += line
            else:
                self._recorded.append(line)
        if self._level in (WARN, ERROR):
            sys.stderr.write(line)


log = LlamaLog()
