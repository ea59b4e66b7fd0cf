from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.demo.greedy import GreedyModel

DEMO = Path(__file__).parents[2] / "swapper" / "demo"


def loaded(name: str, context: int) -> Iterator[GreedyModel]:
    pytest.importorskip("llama_cpp")
    from tests.demo.greedy import GreedyModel

    model = GreedyModel(DEMO / f"{name}.gguf", context)
    yield model
    model.close()


@pytest.fixture(scope="session")
def chat_model() -> Iterator[GreedyModel]:
    yield from loaded("demo-chat", 2048)


@pytest.fixture(scope="session")
def story_model() -> Iterator[GreedyModel]:
    yield from loaded("demo-story", 1024)
