"""The running workers' own metrics, on swapper's page: each sample with its model's name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Final

from swapper.errors import WorkerLost
from swapper.front.upstream import Upstream
from swapper.runtime.endpoint import Endpoint

LONGEST_PAGE: Final = 4 * 1024 * 1024
WITHIN_S: Final = 1.0  # a worker that takes longer is left out this time
SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?[ \t]+(\S.*)")
GENERATED: Final = re.compile(  # how many tokens, as engines call it
    r"^(?:llamacpp:tokens_predicted_total|(?:vllm|sglang):generation_tokens_total"
    r"|swapper_worker_tokens_total)(?:\{.*\})? (\S+)",
    re.MULTILINE,
)
OWN_MODEL: Final = re.compile(r'(^|,)\s*model="')


async def pages(upstream: Upstream, endpoints: Mapping[str, Endpoint]) -> dict[str, str]:
    """What each model's worker has to say, by the model's name; those that say nothing are left out."""
    found = await asyncio.gather(*(_page(upstream, endpoint) for endpoint in endpoints.values()))
    return {model: text for model, text in zip(endpoints, found, strict=True) if text}


def generated(pages: Mapping[str, str]) -> dict[str, int]:
    """How many tokens each model's worker has generated since it started, where it says so."""
    found = {model: GENERATED.findall(text) for model, text in pages.items()}
    return {model: int(sum(map(float, counts))) for model, counts in found.items() if counts}


def relabelled(pages: Mapping[str, str]) -> list[str]:
    """One page of several: families in one piece each, as Prometheus asks for, samples with `model`.

    A label of that name that was there becomes `exported_model`, as Prometheus does it. Lines that are
    no samples are left out.
    """
    families: dict[str, _Family] = {}
    for model, text in pages.items():
        _sort(model, text.splitlines(), families)
    return [
        line for family in families.values() for line in (*family.head.values(), *family.samples)
    ]


class _Family:
    def __init__(self) -> None:
        self.head: dict[str, str] = {}  # HELP and TYPE, of whoever came first
        self.samples: list[str] = []


def _sort(model: str, lines: Iterable[str], families: dict[str, _Family]) -> None:
    name = ""
    for line in lines:
        words = line.split(maxsplit=3)
        if len(words) == 4 and words[0] == "#" and words[1] in ("HELP", "TYPE"):
            name = words[2]
            families.setdefault(name, _Family()).head.setdefault(words[1], line)
        elif (sample := SAMPLE.fullmatch(line)) is not None:
            family = name if name and sample[1].startswith(name) else sample[1]
            families.setdefault(family, _Family()).samples.append(_with_model(model, sample))


def _with_model(model: str, sample: re.Match[str]) -> str:
    name, labels, value = sample.groups()
    escaped = model.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    labels = OWN_MODEL.sub(r'\1exported_model="', labels or "")
    comma = "," if labels else ""
    return f'{name}{{model="{escaped}"{comma}{labels}}} {value}'


async def _page(upstream: Upstream, endpoint: Endpoint) -> str:
    try:
        async with asyncio.timeout(WITHIN_S):
            return await _read(upstream, endpoint)
    except (WorkerLost, TimeoutError):
        return ""


async def _read(upstream: Upstream, endpoint: Endpoint) -> str:
    headers = [(name.encode(), value.encode()) for name, value in endpoint.headers.items()]
    response = await upstream.open(endpoint, "GET", "/metrics", headers, b"")
    try:
        text = response.take()
        while not response.is_complete and len(text) < LONGEST_PAGE:
            await response.wait()
            text += response.take()
    finally:
        response.close()
    return text.decode("utf-8", "replace") if response.status == 200 else ""
