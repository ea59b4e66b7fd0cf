"""The demo models, from the safetensors they are shipped as."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the paged engine needs torch")
pytest.importorskip("transformers", reason="transformers is what models are compared with")

import torch
import transformers

from backends.paged.loader import load
from tests.paged.models.agreement import agree

DEMO = Path(__file__).parents[3] / "swapper" / "demo"


@pytest.mark.parametrize("name", ["demo-chat", "demo-story"])
def test_demo_models(name: str) -> None:
    path = str(DEMO / name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    agree(model, load(path, "auto", "cpu")[1], length=200, vocab_size=1024)
