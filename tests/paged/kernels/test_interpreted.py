from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = sorted(Path(__file__).parent.glob("interpreted*.py"))
DEADLINE = 300.0


@pytest.mark.timeout(DEADLINE + 30)
@pytest.mark.parametrize("checks", CHECKS, ids=lambda path: path.stem)
def test_every_kernel_does_in_the_interpreter_what_its_reference_does(checks: Path) -> None:
    for name in ("torch", "triton"):
        pytest.importorskip(name, reason=f"needs {name}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(checks)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
