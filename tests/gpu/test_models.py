"""Every architecture on the device computes what transformers does on the CPU, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is what models are compared with")

from backends.paged.loader import load
from tests.paged.models import oracle
from tests.paged.models.agreement import agree
from tests.paged.models.test_architectures import CASES

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("model_type", "settings"), CASES.values(), ids=CASES)
def test_logits_and_greedy_tokens_are_transformers(
    device: torch.device, model_type: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    model = oracle.save(tmp_path, model_type, **settings)
    _, decoder = load(str(tmp_path), torch.float32, device)
    agree(model, decoder, error=1e-3)
