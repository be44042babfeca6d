"""The counters and gauges of an engine become metrics: differences over the windows, and peaks."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.services.test_exposition import STARTED, page
from tune_gpu.common.metric import Protocol
from tune_gpu.evaluation.engine_metrics import block_sizes, engine_metrics, ideal_metrics
from tune_gpu.metrics import PAIR, catalogue_of
from tune_gpu.services.exposition import gauges_in
from tune_gpu.telemetry.counters import COUNTER, rises
from tune_gpu.telemetry.sampler import DeviceSample, DeviceStats
from tune_gpu.workload.sessions.ideal import Ideal

TWO = catalogue_of({"small": Protocol.CHAT, "large": Protocol.CHAT, "ears": Protocol.TRANSCRIPTION})


def window(counted: Mapping[str, Mapping[str, float]], *readings: Mapping[str, Mapping[str, float]]) -> DeviceStats:
    moments = tuple(DeviceSample(float(at), None, None, gauges=each) for at, each in enumerate(readings))
    return DeviceStats(None, None, {}, 0, len(moments), moments, counted=counted)


LOADED = page(prefix_cache_queries_total=1000.0, prefix_cache_hits_total=620.0, num_preemptions_total=2.0, request_queue_time_seconds_sum=0.6, request_queue_time_seconds_count=4.0)
COUNTED = rises(gauges_in(STARTED), gauges_in(LOADED))
BUSY, QUIET = {"running": 3.0, "waiting": 2.0, "kv_cache_pct": 40.0}, {"running": 1.0, "waiting": 0.0, "kv_cache_pct": 10.0}


def test_counters_are_pooled_over_the_windows_and_gauges_have_peaks() -> None:
    found = engine_metrics([window({"vllm": COUNTED}, {"vllm": QUIET}), window({"vllm": COUNTED}, {"vllm": BUSY})], {}, PAIR)
    assert found == {
        "kv_cache_peak_pct": 40.0, "running_requests": 3.0, "waiting_requests": 2.0, "kv_cache_tokens": None, "kv_max_concurrency": None, "prefix_hit_pct": 62.0,
        "queue_ms": 150.0, "preemptions": 4,
    }  # fmt: skip


def test_each_engine_has_its_own_and_an_unknown_one_has_none() -> None:
    found = engine_metrics([window({"small": COUNTED}, {"small": BUSY})], {"large": {"kv_cache_tokens": 64}}, TWO)
    assert (found["small.prefix_hit_pct"], found["small.running_requests"], found["large.kv_cache_tokens"]) == (62.0, 3.0, 64)
    assert [found[f"large.{name}"] for name in ("prefix_hit_pct", "queue_ms", "preemptions", "waiting_requests")] == [None] * 4
    assert not any(name.startswith("ears.") for name in found)


def test_a_window_without_counters_leaves_the_sum_unknown() -> None:
    found = engine_metrics([window({"vllm": COUNTED}), window({})], {}, PAIR)
    assert (found["prefix_hit_pct"], found["preemptions"]) == (None, None)


@given(st.dictionaries(st.sampled_from([f"a{COUNTER}", f"b{COUNTER}"]), st.tuples(st.floats(0, 1e9), st.floats(0, 1e9))))
def test_a_counter_that_fell_belongs_to_another_process(ends: dict[str, tuple[float, float]]) -> None:
    found = rises({name: first for name, (first, _) in ends.items()}, {name: last for name, (_, last) in ends.items()})
    assert found.keys() == {name for name, (first, last) in ends.items() if last >= first}
    assert all(rise >= 0.0 for rise in found.values())


def test_hits_stand_beside_what_was_possible() -> None:
    measured = {"prefix_hit_pct": 62.0, "kv_cache_tokens": 1056}
    ideals = [{"vllm": Ideal(1000, 900, 1900)}, {"vllm": Ideal(1000, 860, 1848)}]
    assert ideal_metrics(ideals, measured, PAIR) == {"prefix_hit_of_ideal_pct": 70.455, "working_set_pct": 179.924}
    unknown = {"prefix_hit_of_ideal_pct": None, "working_set_pct": None}
    assert ideal_metrics([], measured, PAIR) == ideal_metrics([*ideals, {}], measured, PAIR) == unknown
    assert block_sizes({"vllm": {"block_size": 32}, "odd": {"block_size": None}, "mute": {}}) == {"vllm": 32}
