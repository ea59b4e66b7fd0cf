"""How the page puts the last requests together: its own code, in node instead of a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

Told = dict[str, Any]
SCRIPT = """
import { recent } from "./recent.mjs";
let known = [];
const seen = [];
for (const told of JSON.parse(process.argv[1])) {
  known = recent(known, told);
  seen.push(known);
}
console.log(JSON.stringify(seen));
"""


def seen(folder: Path, *told: Told) -> list[list[Told]]:
    """The page's list after each of these."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    (folder / "recent.mjs").write_text((files("swapper.front") / "ui/js/recent.js").read_text())
    command = ["node", "--input-type=module", "-e", SCRIPT, json.dumps(told)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    found: list[list[Told]] = json.loads(done.stdout)
    return found


def told(*numbers: int, since: int = 0, oldest: int = 1, kept_from: int | None = None) -> Told:
    return {
        "requests": [{"number": number, "is_kept": True} for number in numbers],
        "requests_since": since,
        "oldest_request": oldest,
        "capture": {"oldest": kept_from},
    }


def numbers(requests: list[Told]) -> list[int]:
    return [request["number"] for request in requests]


def test_what_is_new_is_added_and_what_is_too_old_goes(tmp_path: Path) -> None:
    lists = seen(
        tmp_path, told(1, 2), told(since=2), told(3, since=2), told(4, 5, since=3, oldest=3)
    )
    assert [*map(numbers, lists)] == [[1, 2], [1, 2], [1, 2, 3], [3, 4, 5]]


def test_after_a_lost_connection_the_list_is_the_servers(tmp_path: Path) -> None:
    again = told(2, 3, oldest=2)
    by_another_server = told(1)
    lists = seen(tmp_path, told(1, 2), again, by_another_server)
    assert [*map(numbers, lists)] == [[1, 2], [2, 3], [1]]


def test_what_is_kept_no_more_is_known_of(tmp_path: Path) -> None:
    off = {**told(since=3), "capture": None}
    lists = seen(
        tmp_path,
        told(1, 2, 3, kept_from=1),
        told(since=3, kept_from=3),
        told(since=3, kept_from=None),
        off,
    )
    assert [[request["is_kept"] for request in them] for them in lists] == [
        [True, True, True],
        [False, False, True],
        [False] * 3,
        [False] * 3,
    ]
