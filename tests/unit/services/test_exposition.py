"""The readings and counters of a server, from the pages that real ones gave."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tune_gpu.services import running
from tune_gpu.services.exposition import gauges_in

PAGES = Path(__file__).parents[2] / "data" / "metrics_pages"
STARTED = (PAGES / "vllm-0.32.0-started.txt").read_text(encoding="utf-8")
READINGS = {
    running.KV_CACHE_PCT, running.RUNNING, running.WAITING, running.PREFIX_QUERIES, running.PREFIX_HITS, running.PREEMPTED, running.QUEUED_S, running.QUEUED,
}  # fmt: skip


def page(**values: float) -> str:
    """The page of a started engine with other values."""
    text = STARTED
    for name, value in values.items():
        text, n = re.subn(rf"(?m)^(vllm:{name}\{{[^}}]*\}}) .*$", rf"\g<1> {value}", text)
        assert n == 1, name
    return text


def test_an_engine_that_has_just_started_gives_every_reading() -> None:
    assert gauges_in(STARTED) == dict.fromkeys(READINGS, 0.0)


def test_readings_are_taken_from_their_own_lines() -> None:
    found = gauges_in(
        page(
            kv_cache_usage_perc=0.5, num_requests_running=4.0, num_requests_waiting=2.0, prefix_cache_queries_total=1668.0, prefix_cache_hits_total=1056.0,
            num_preemptions_total=3.0, request_queue_time_seconds_sum=1.5, request_queue_time_seconds_count=6.0,
        )
    )  # fmt: skip
    assert found == {
        running.KV_CACHE_PCT: 50.0, running.RUNNING: 4.0, running.WAITING: 2.0, running.PREFIX_QUERIES: 1668.0, running.PREFIX_HITS: 1056.0, running.PREEMPTED: 3.0,
        running.QUEUED_S: 1.5, running.QUEUED: 6.0,
    }  # fmt: skip


def test_engines_of_one_server_are_added_but_for_the_fullest_cache() -> None:
    second = page(num_requests_running=3.0, kv_cache_usage_perc=0.75, prefix_cache_hits_total=10.0).replace('engine="0"', 'engine="1"')
    found = gauges_in(page(num_requests_running=1.0, kv_cache_usage_perc=0.25, prefix_cache_hits_total=5.0) + second)
    assert (found[running.RUNNING], found[running.KV_CACHE_PCT], found[running.PREFIX_HITS]) == (4.0, 75.0, 15.0)


@pytest.mark.parametrize("text", ["", "vllm:num_requests_running{} NaN\n", "vllm:num_requests_running_now 3\n", "something:else 1\n"])
def test_a_page_without_readings_gives_none(text: str) -> None:
    assert gauges_in(text) == {}
