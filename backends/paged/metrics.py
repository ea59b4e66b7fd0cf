"""Prometheus text under the names that vLLM gives the same things, so that its dashboards show us."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from time import monotonic

from backends.paged.scheduler import Scheduler
from backends.paged.sequence import BLOCK_SIZE, Sequence

LATENCIES = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
             20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
GAPS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
STEPS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Histogram:
    """Values counted by the bucket they fall in."""

    def __init__(self, bounds: Ordered[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """The samples of one metric; `labels` without braces."""
        below = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {below}'
        yield f"{name}_sum{{{labels}}} {self.total:.10g}"
        yield f"{name}_count{{{labels}}} {below}"


@dataclass(slots=True)
class Times:
    """When things happened to an answer, in seconds of the monotonic clock; 0: not yet."""

    arrived: float = field(default_factory=monotonic)
    begun: float = 0.0
    first: float = 0.0
    last: float = 0.0


@dataclass(slots=True)
class Counters:
    """What metrics are made of."""

    prompt_tokens: int = 0
    looked_up_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    step_tokens: Histogram = field(default_factory=lambda: Histogram(STEPS))
    first_token: Histogram = field(default_factory=lambda: Histogram(LATENCIES))
    gap: Histogram = field(default_factory=lambda: Histogram(GAPS))
    whole: Histogram = field(default_factory=lambda: Histogram(LATENCIES))
    queued: Histogram = field(default_factory=lambda: Histogram(LATENCIES))
    running: Histogram = field(default_factory=lambda: Histogram(LATENCIES))
    prefill: Histogram = field(default_factory=lambda: Histogram(LATENCIES))
    decode: Histogram = field(default_factory=lambda: Histogram(LATENCIES))
    prompt_sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))
    answer_sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))
    allowed_sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))

    def step(self, num_tokens: int) -> None:
        """A step was computed."""
        self.step_tokens.add(num_tokens)

    def answered(self, times: Times, now: float, *, is_token: bool) -> None:
        """An answer has come on by a token, or to its end."""
        if times.first:
            self.gap.add(now - times.last)
        else:
            times.first = now
            self.first_token.add(now - times.arrived)
        times.last = now
        self.answer_tokens += is_token

    def begin(self, times: Times, now: float, sequence: Sequence) -> None:
        """An answer's prompt is being read, or what of it is not cached."""
        times.begun = now
        self.prompt_tokens += sequence.num_prompt
        self.looked_up_tokens += sequence.num_prompt
        self.cached_tokens += sequence.num_cached or 0

    def finish(self, times: Times, reason: str, sequence: Sequence) -> None:
        """An answer is whole."""
        self.finished[reason] += 1
        self.whole.add(times.last - times.arrived)
        self.queued.add(times.begun - times.arrived)
        self.running.add(times.last - times.begun)
        self.prefill.add(times.first - times.begun)
        self.decode.add(times.last - times.first)
        self.prompt_sizes.add(sequence.num_prompt)
        self.answer_sizes.add(sequence.num_answer)
        self.allowed_sizes.add(sequence.max_tokens)


def render(model: str, scheduler: Scheduler, counters: Counters) -> str:
    """All metrics. Read from another thread than the one that counts: each value is true, not their sum."""
    labels = f'model_name="{_escaped(model)}",engine="0"'
    blocks = scheduler.blocks
    numbers: tuple[tuple[str, str, str, float], ...] = (
        ("num_requests_running", "gauge", "Requests that run", len(scheduler.running)),
        ("num_requests_waiting", "gauge", "Requests that wait", len(scheduler.waiting)),
        ("kv_cache_usage_perc", "gauge", "Share of the KV cache that is held, 1 is all",
         blocks.num_used / blocks.num_blocks),
        ("num_preemptions_total", "counter", "Requests computed again", scheduler.num_preempted),
        ("prefix_cache_queries_total", "counter", "Prompt tokens looked up",
         counters.looked_up_tokens),
        ("prefix_cache_hits_total", "counter", "Prompt tokens found", counters.cached_tokens),
        ("prompt_tokens_total", "counter", "Prompt tokens, cached ones too", counters.prompt_tokens),
        ("generation_tokens_total", "counter", "Tokens generated", counters.answer_tokens),
    )  # fmt: skip
    histograms = (
        ("iteration_tokens_total", "Tokens a step", counters.step_tokens),
        ("time_to_first_token_seconds", "Until the first token", counters.first_token),
        ("inter_token_latency_seconds", "Between two tokens", counters.gap),
        ("e2e_request_latency_seconds", "Until the last token", counters.whole),
        ("request_queue_time_seconds", "Until it is begun", counters.queued),
        ("request_inference_time_seconds", "From there to the last token", counters.running),
        ("request_prefill_time_seconds", "From its begin to the first token", counters.prefill),
        ("request_decode_time_seconds", "From there to the last", counters.decode),
        ("request_prompt_tokens", "Tokens of a prompt", counters.prompt_sizes),
        ("request_generation_tokens", "Tokens of an answer", counters.answer_sizes),
        # Of several answers to one request vLLM counts the longest; here each is a request.
        ("request_max_num_generation_tokens", "Tokens of an answer", counters.answer_sizes),
        ("request_params_max_tokens", "Tokens an answer may have", counters.allowed_sizes),
    )
    lines: list[str] = []
    for name, kind, meaning, value in numbers:
        lines += _head(name, kind, meaning)
        lines.append(f"vllm:{name}{{{labels}}} {value:.10g}")
    lines += _head("cache_config_info", "gauge", "The KV cache")
    sizes = f'block_size="{BLOCK_SIZE}",num_gpu_blocks="{blocks.num_blocks}"'
    lines.append(f"vllm:cache_config_info{{{labels},{sizes}}} 1")
    lines += _head("request_success_total", "counter", "Answers finished")
    for reason in ("stop", "length"):
        labelled = f'{labels},finished_reason="{reason}"'
        lines.append(f"vllm:request_success_total{{{labelled}}} {counters.finished[reason]}")
    for name, meaning, histogram in histograms:
        lines += _head(name, "histogram", meaning)
        lines += histogram.lines(f"vllm:{name}", labels)
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP vllm:{name} {meaning}.", f"# TYPE vllm:{name} {kind}"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
