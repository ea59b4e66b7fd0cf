"""Ollama's errors: a text, and nothing else."""

from __future__ import annotations

from swapper.front.dialects.dialect import Json
from swapper.front.refusal import Refusal


def error_of(refusal: Refusal) -> Json:
    """The envelope, for an answer of its own and for the last line of a stream alike."""
    message = refusal.message
    if refusal.code == "model_not_found":  # words that clients look for
        message = message.replace("is not configured", "not found", 1)
    return {"error": message}
