"""Services that answer garbage, clocks that jump, a generator that falls behind: a value is a measurement, or it is absent."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from tests.faults.tiny import PARAMS, TinyEvaluator
from tune_gpu.common.failures import FailureKind, Phase
from tune_gpu.evaluation.measurement import Status


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyEvaluator]:
    with TinyEvaluator(monkeypatch) as evaluator:
        yield evaluator


@pytest.mark.parametrize(
    ("whisper", "vllm", "expected"),
    [
        ("http_500", "well", "stt_http_500"),
        ("empty_transcript", "well", "stt_empty_transcript"),
        ("nan", "well", "stt_bad_payload"),
        ("not_text", "well", "stt_bad_payload"),
        ("not_json", "well", "stt_bad_payload"),
        ("deep", "well", "stt_bad_payload"),
        ("well", "llm_http_500", "llm_http_500"),
        ("well", "llm_empty_stream", "llm_empty_answer"),
        ("well", "llm_half_stream", "llm_truncated_stream"),
        ("well", "llm_nan", "llm_bad_payload"),
        ("well", "llm_infinite", "llm_bad_payload"),
    ],
)
def test_an_answer_that_is_none_is_a_failed_request(tiny: TinyEvaluator, whisper: str, vllm: str, expected: str) -> None:
    tiny.behave(whisper, vllm)
    found = tiny.evaluate(PARAMS)
    assert found.status is Status.FAILED
    assert found.failure is not None
    assert found.failure.kind is FailureKind.REQUESTS_FAILED
    assert expected in found.failure.message
    assert found.metrics == {}
    if expected in ("stt_http_500", "llm_http_500"):
        tiny.behave()
        assert tiny.evaluate(PARAMS).status is Status.OK, "the next candidate is measured"
        tiny.stop_services()


@pytest.mark.parametrize("vllm", ["bad_metrics", "bad_version"])
def test_an_engine_that_tells_garbage_of_itself_is_measured_all_the_same(tiny: TinyEvaluator, vllm: str) -> None:
    tiny.behave(vllm=vllm)
    found = tiny.evaluate(PARAMS)
    tiny.stop_services()
    assert found.status is Status.OK, found.failure
    unknown = "kv_cache_tokens" if vllm == "bad_metrics" else "version"
    assert found.engine[unknown] is None, "what it does not say is absent"


def test_a_clock_that_jumps_moves_no_latency(tiny: TinyEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is set back and forth by hours during the windows; only the monotonic clock is asked."""
    jumps = iter(range(10**9))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200 * math.sin(next(jumps)))
    found = tiny.evaluate(PARAMS)
    tiny.stop_services()
    assert found.status is Status.OK, found.failure
    for name in ("stt_latency_ms", "llm_latency_ms", "ttft_ms", "voice_turn_ms", "generator_lag_ms"):
        assert 0 <= found.metrics[name]["p50"] <= found.metrics[name]["p99"] < 3000, name
    assert 0 <= found.timings.load_s < 60
    assert all(0 <= spent < 60 for spent in found.timings.start_s.values())


def test_lagging_generator_makes_the_window_invalid(
    tiny: TinyEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something in the generator's own process holds its event loop up (a real stall, of a tenth of a second and more)."""
    from tune_gpu.workload import window

    send = window.take_turn

    async def send_and_stall(*given: object, **named: object) -> object:
        time.sleep(0.15)
        return await send(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(window, "take_turn", send_and_stall)
    found = tiny.evaluate(PARAMS)
    assert found.status is Status.FAILED
    assert found.failure is not None
    assert (found.failure.kind, found.failure.phase) == (FailureKind.MEASUREMENT_INVALID, Phase.LOAD)
    assert "late at p99" in found.failure.message
    assert found.failure.retryable
