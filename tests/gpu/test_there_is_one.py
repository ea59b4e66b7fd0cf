"""Names what is left out where there is no GPU."""

from __future__ import annotations

import pytest

from tests.gpu.conftest import HAS_DEVICE

pytestmark = pytest.mark.gpu


def test_there_is_a_gpu() -> None:
    if not HAS_DEVICE:
        pytest.skip("tests/gpu needs an NVIDIA GPU, and a torch built for it")
