"""What is counted of answers, and the page that says it."""

from __future__ import annotations

import re

from backends.paged.block_manager import BlockManager
from backends.paged.metrics import Counters, Histogram, Times, render
from backends.paged.scheduler import Scheduler
from backends.paged.sequence import BLOCK_SIZE, Sequence

SAMPLE = re.compile(r'^vllm:(\w+)\{model_name="m",engine="0"\} (\S+)$', re.MULTILINE)


def test_a_bucket_has_what_is_not_above_its_bound() -> None:
    histogram = Histogram((1, 2, 5))
    for value in (1, 1.5, 2, 7):
        histogram.add(value)
    assert list(histogram.lines("size", 'a="b"')) == [
        'size_bucket{a="b",le="1"} 1',
        'size_bucket{a="b",le="2"} 3',
        'size_bucket{a="b",le="5"} 3',
        'size_bucket{a="b",le="+Inf"} 4',
        'size_sum{a="b"} 11.5',
        'size_count{a="b"} 4',
    ]


def test_every_number_stands_under_its_name() -> None:
    scheduler = Scheduler(BlockManager(16), budget=64, max_running=1)
    for serial in range(4):
        scheduler.add(Sequence(serial, [serial] * 3 * BLOCK_SIZE, 8))
    scheduler.schedule()
    scheduler.preempt(scheduler.running[0])
    scheduler.schedule()
    counters = Counters()
    counters.step(48)
    counters.step(3)
    asked = Sequence(9, [7] * 6, 8)
    asked.num_cached = 2
    times = Times(arrived=10.0)
    counters.begin(times, 11.0, asked)
    counters.answered(times, 13.0, is_token=True)
    counters.answered(times, 17.0, is_token=True)
    counters.answered(times, 18.5, is_token=False)
    asked.tokens += [1, 2, 3, 4]
    counters.finish(times, "stop", asked)
    page = render("m", scheduler, counters)
    found = {name: float(value) for name, value in SAMPLE.findall(page)}
    assert found == {
        "num_requests_running": 1,
        "num_requests_waiting": 3,
        "kv_cache_usage_perc": 3 / 16,
        "num_preemptions_total": 1,
        "prefix_cache_queries_total": 6,
        "prefix_cache_hits_total": 2,
        "prompt_tokens_total": 6,
        "generation_tokens_total": 2,
        "iteration_tokens_total_sum": 51,
        "iteration_tokens_total_count": 2,
        "time_to_first_token_seconds_sum": 3,
        "time_to_first_token_seconds_count": 1,
        "inter_token_latency_seconds_sum": 5.5,
        "inter_token_latency_seconds_count": 2,
        "e2e_request_latency_seconds_sum": 8.5,
        "e2e_request_latency_seconds_count": 1,
        "request_queue_time_seconds_sum": 1,
        "request_queue_time_seconds_count": 1,
        "request_inference_time_seconds_sum": 7.5,
        "request_inference_time_seconds_count": 1,
        "request_prefill_time_seconds_sum": 2,
        "request_prefill_time_seconds_count": 1,
        "request_decode_time_seconds_sum": 5.5,
        "request_decode_time_seconds_count": 1,
        "request_prompt_tokens_sum": 6,
        "request_prompt_tokens_count": 1,
        "request_generation_tokens_sum": 4,
        "request_generation_tokens_count": 1,
        "request_max_num_generation_tokens_sum": 4,
        "request_max_num_generation_tokens_count": 1,
        "request_params_max_tokens_sum": 8,
        "request_params_max_tokens_count": 1,
    }
    sizes = f'block_size="{BLOCK_SIZE}",num_gpu_blocks="16"'
    assert f'vllm:cache_config_info{{model_name="m",engine="0",{sizes}}} 1\n' in page
    assert (
        'vllm:request_success_total{model_name="m",engine="0",finished_reason="stop"} 1\n' in page
    )


def test_any_name_can_stand_in_a_label() -> None:
    scheduler = Scheduler(BlockManager(1), budget=1, max_running=1)
    page = render('a"b\\c\nd', scheduler, Counters())
    assert 'vllm:num_requests_running{model_name="a\\"b\\\\c\\nd",engine="0"} 0\n' in page
