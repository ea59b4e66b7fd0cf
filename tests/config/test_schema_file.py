"""The schema that editors read is the one that the keys say."""

from __future__ import annotations

import json
from pathlib import Path

from swapper.config import config_schema

SCHEMA = Path(__file__).parents[2] / "config.schema.json"


def test_it_is_fresh() -> None:
    fresh = json.loads(json.dumps(config_schema()))
    assert json.loads(SCHEMA.read_text()) == fresh, (
        "run `swapper check --schema > config.schema.json`"
    )
