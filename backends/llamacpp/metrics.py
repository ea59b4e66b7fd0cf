"""Prometheus text, under the names that llama.cpp's own server uses where it has one for the thing."""

from __future__ import annotations

from backends.llamacpp.stepper import Stepper


def render(stepper: Stepper | None, threads: int) -> str:
    """All metrics. Read from another thread than the one that counts: each value is true, not their sum."""
    if stepper is None:
        return ""
    scheduler, counters = stepper.scheduler, stepper.counters
    cells = scheduler.cells
    rows_a_step = counters.rows / counters.steps if counters.steps else 0.0
    rows: tuple[tuple[str, str, str, float], ...] = (
        ("prompt_tokens_total", "counter", "Prompt tokens computed", counters.prompt_tokens),
        (
            "prompt_tokens_cached_total",
            "counter",
            "Prompt tokens taken over",
            counters.cached_tokens,
        ),
        ("tokens_predicted_total", "counter", "Tokens generated", counters.answer_tokens),
        ("requests_total", "counter", "Answers finished", counters.finished),
        ("requests_processing", "gauge", "Sequences running", len(scheduler.running)),
        ("requests_deferred", "gauge", "Sequences waiting", len(scheduler.waiting)),
        ("preemptions_total", "counter", "Sequences computed again", scheduler.num_preempted),
        ("n_decode_total", "counter", "Steps", counters.steps),
        ("n_busy_slots_per_decode", "gauge", "Sequences a step", rows_a_step),
        ("kv_cache_usage_ratio", "gauge", "Share of the KV pool in use", cells.used / cells.size),
        ("kv_cache_tokens", "gauge", "Cells of the KV pool in use", cells.used),
        ("threads", "gauge", "CPU threads it computes with", threads),
        ("kept_tokens", "gauge", "Tokens kept of finished sequences", scheduler.cache.num_tokens),
    )
    lines = []
    for name, kind, meaning, value in rows:
        lines += [
            f"# HELP llamacpp:{name} {meaning}.",
            f"# TYPE llamacpp:{name} {kind}",
            f"llamacpp:{name} {value:.10g}",
        ]
    return "\n".join(lines) + "\n"
