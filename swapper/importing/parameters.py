"""Parameters as Ollama writes them, told as a model's keys."""

from __future__ import annotations

from collections.abc import Mapping

from swapper.importing.draft import DraftModel, flow, put

_SETTINGS = {
    "num_ctx": "context",
    "num_gpu": "gpu_layers",
    "num_thread": "threads",
    "num_batch": "batch",
    "use_mmap": "mmap",
}
_SAMPLING = {
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "typical_p": "typical_p", "seed": "seed", "stop": "stop", "num_predict": "max_tokens",
    "repeat_penalty": "repeat_penalty", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}  # fmt: skip


def apply_parameters(model: DraftModel, parameters: Mapping[str, object]) -> None:
    """Lay parameters over a model: settings of its engine, and what requests say nothing of."""
    defaults: dict[str, object] = {}
    for name, value in parameters.items():
        if name in _SETTINGS:
            _set(model, name, value)
        elif name in _SAMPLING:
            if not (name == "num_predict" and isinstance(value, int) and value < 0):  # no limit
                defaults[_SAMPLING[name]] = value
        else:
            model.notes.append(f"{name}: {flow(value)}")
    if defaults:
        model.keys["default"] = defaults


def _set(model: DraftModel, name: str, value: object) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and value < (name != "num_gpu"):
        return  # a negative number leaves it to the engine, as saying nothing does here
    put(model, _SETTINGS[name], value, called=name, otherwise="the engine has no such setting")
