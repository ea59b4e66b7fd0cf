"""`python -m backends.echo --listen ... --options FILE`"""

from __future__ import annotations

import sys

from backends.echo.engine import load
from backends.serving.worker import run

sys.exit(run(load))
