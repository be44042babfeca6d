"""Windows, clients and the ramp, against servers with set delays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.support.servers import Behaviour, servers
from tune_gpu.common.metric import Metric
from tune_gpu.compare.observe import turns_by_arrival
from tune_gpu.config.schema import ObjectiveSettings, WorkloadSettings
from tune_gpu.evaluation.objective import evaluate
from tune_gpu.metrics import ITL, LLM_LATENCY, PAIR, STT_LATENCY, TTFT, VOICE_TURN
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.capacity import decide, find_capacity, with_error
from tune_gpu.workload.inputs import Inputs
from tune_gpu.workload.percentiles import Distribution
from tune_gpu.workload.plan import background_prompt
from tune_gpu.workload.summary import TrafficSummary, interference, summarise
from tune_gpu.workload.window import WindowResult, run_window, warm_up

CLIPS = [Utterance(name, np.full(1600, 0.1, dtype=np.float32), "hello world") for name in ("a", "b", "c")]
INPUTS = Inputs(CLIPS)


def workload(**change: object) -> WorkloadSettings:
    values = {"turn_rate_per_s": 20.0, "background_rate_per_s": 10.0, "window_s": 0.5, "max_tokens": 4, "request_timeout_s": 5.0, **change}
    return WorkloadSettings(**values)  # type: ignore[arg-type]


def one_window(behaviour: Behaviour, only: str | None = None, **change: object) -> WindowResult:
    with servers(behaviour) as traffic:
        return run_window(traffic, workload(**change), INPUTS, seed=0, window_index=0, only=only)


def samples(summary: TrafficSummary, metric: Metric) -> Distribution:
    found = summary.of(metric)
    assert found is not None
    return found


def test_a_turn_is_speech_then_transcript_then_streamed_answer() -> None:
    behaviour = Behaviour(stt_s=0.05, first_token_s=0.02, token_s=0.01)
    summary = summarise([one_window(behaviour, background_rate_per_s=0.0)])
    assert summary.n_failed == 0
    assert set(behaviour.prompts) == {"hello world"}
    assert samples(summary, STT_LATENCY).p50 >= 50
    assert samples(summary, TTFT).p50 >= 20
    assert samples(summary, LLM_LATENCY).p50 >= samples(summary, TTFT).p50 + 30, "tokens are seen as they are made"
    assert samples(summary, VOICE_TURN).p50 >= samples(summary, STT_LATENCY).p50 + 20
    assert samples(summary, ITL).n == 3 * summary.n_requests
    assert summary.recognition["whisper"].rate == 0.0


def test_a_slow_system_cannot_hide_its_queue() -> None:
    """20 turns a second at a server that does 10: each waits behind the ones before, and the wait is in its latency."""
    result = one_window(Behaviour(stt_s=0.1, stt_one_at_a_time=True), only="whisper", window_s=1.0)
    summary = summarise([result])
    assert summary.n_requests > 10
    assert samples(summary, STT_LATENCY).p95 > 3 * 100
    by_due = sorted(result.turns, key=lambda turn: turn.due)
    assert (by_due[-1].samples["stt"].latency_ms or 0) > (by_due[0].samples["stt"].latency_ms or 0)


def test_the_same_seed_and_window_send_the_same_traffic() -> None:
    first, again = one_window(Behaviour()), one_window(Behaviour())
    assert sorted(t.name for t in first.turns) == sorted(t.name for t in again.turns)
    assert len(first.background) == len(again.background)


def test_windows_of_about_a_turn_each_together_hear_every_clip() -> None:
    few = workload(background_rate_per_s=0.0, turn_rate_per_s=5.0, window_s=0.2)
    with servers(Behaviour()) as traffic:
        windows = [run_window(traffic, few, INPUTS, seed=0, window_index=index, only="whisper") for index in range(len(CLIPS))]
    assert {turn.name for window in windows for turn in window.turns} == {"a", "b", "c"}


def test_clips_outside_of_windows_count_for_the_word_error_rate_only() -> None:
    with servers(Behaviour(stt_text="hello")) as traffic:
        wrong = warm_up(traffic, workload(), INPUTS, turns=3, only="whisper")
    window = one_window(Behaviour(), background_rate_per_s=0.0)
    alone, pooled = summarise([window]), summarise([window], extra_turns=wrong)
    before, heard = alone.recognition["whisper"], pooled.recognition["whisper"]
    assert before.rate == 0.0
    assert heard.n_transcripts == before.n_transcripts + 3
    assert (heard.n_clips, heard.n_words) == (3, 6), "each clip once, however often it was heard"
    assert heard.rate == pytest.approx(3 * 1 / (2 * heard.n_transcripts)), "half of the words of three clips"
    assert (pooled.distributions, pooled.n_requests) == (alone.distributions, alone.n_requests)


@pytest.mark.parametrize(
    ("behaviour", "errors"),
    [
        (Behaviour(stt_status=500), {"stt_http_500"}),
        (Behaviour(stt_body="no json"), {"stt_bad_payload"}),
        (Behaviour(stt_body="[]"), {"stt_bad_payload"}),
        (Behaviour(stt_text=" "), {"stt_empty_transcript"}),
        (Behaviour(stt_s=60.0), {"stt_timeout"}),
        (Behaviour(llm_status=503), {"llm_http_503"}),
        (Behaviour(first_token_s=60.0), {"llm_timeout"}),
        (Behaviour(garbage=True), {"llm_bad_payload"}),
        (Behaviour(empty=True), {"llm_empty_answer"}),
        (Behaviour(most_tokens=3), {"llm_short_answer"}),
        (Behaviour(stop_after=2, token_s=0.01), {"llm_truncated_stream"}),
    ],
)
def test_what_fails_is_counted_and_never_a_latency(behaviour: Behaviour, errors: set[str]) -> None:
    slow = errors & {"stt_timeout", "llm_timeout"}
    result = one_window(behaviour, background_rate_per_s=0.0, request_timeout_s=1.0 if slow else 30.0, window_s=0.2)
    summary = summarise([result])
    assert {turn.error for turn in result.turns} == errors
    assert summary.n_failed == summary.n_requests == len(result.turns)
    assert summary.of(LLM_LATENCY) is None
    assert summary.of(VOICE_TURN) is None
    assert summary.of(TTFT) is None
    assert (summary.of(STT_LATENCY) is None) == next(iter(errors)).startswith("stt")


def test_a_service_that_answers_with_errors_is_not_silent() -> None:
    """While requests overlap it is never owed none; one that refuses each of them at once does not hang."""
    with servers(Behaviour(stt_status=500, llm_status=503)) as traffic:
        pulse = traffic.pulse
        for service in ("whisper", "vllm"):
            pulse.waiting[service], pulse.marked[service] = 1, 0.0  # another request, that has been waiting since long ago
            warm_up(traffic, workload(), INPUTS, only=service, turns=1)
            assert (pulse.idle_since(service) or 0.0) > 0.0, service


def test_a_transcript_of_nothing_is_all_words_wrong() -> None:
    assert summarise([one_window(Behaviour(stt_text=""), only="whisper")]).recognition["whisper"].rate == 1.0


def test_tokens_without_text_are_tokens() -> None:
    """A byte-level token may be part of a character: vLLM streams it as a chunk without text."""
    summary = summarise([one_window(Behaviour(token_text=""), background_rate_per_s=0.0)])
    assert summary.n_failed == 0
    assert summary.of(TTFT) is not None


def test_turns_beyond_the_allowed_number_in_flight_are_shed_and_counted() -> None:
    summary = summarise([one_window(Behaviour(stt_s=0.3), max_inflight_turns=1, background_rate_per_s=0.0)])
    assert summary.failures["shed"] >= 1


def test_a_dead_service_ends_the_window_at_once() -> None:
    with servers(Behaviour(stt_s=60.0)) as traffic:
        asked = iter([None, None, "it died"])
        settings = workload(request_timeout_s=600.0)
        result = run_window(traffic, settings, INPUTS, seed=0, window_index=0, abort=lambda: next(asked))
    assert result.aborted == "it died"


def test_a_generator_that_is_late_makes_the_window_invalid() -> None:
    assert WindowResult("mixed", lag_ms=[1.0] * 100).invalid is None
    late = WindowResult("mixed", lag_ms=[80.0] * 100).invalid
    assert late is not None
    assert "80 ms late" in late


def test_solo_windows_ask_one_service_only() -> None:
    behaviour = Behaviour()
    stt, llm = one_window(behaviour, only="whisper"), one_window(Behaviour(stt_status=500), only="vllm")
    assert behaviour.prompts == []
    assert summarise([llm]).n_failed == 0
    mixed = summarise([one_window(Behaviour(stt_s=0.5, first_token_s=0.5))])
    ratios = interference(mixed, {"stt": summarise([stt]), "llm": summarise([llm])})
    assert ratios["stt"] is not None
    assert ratios["llm"] is not None
    assert ratios["stt"] > 1
    assert ratios["llm"] > 1
    assert interference(mixed, {}) == {"stt": None, "llm": None}


def test_background_prompts_are_never_the_same() -> None:
    rng = np.random.default_rng(0)
    prompts = {background_prompt(64, rng) for _ in range(50)}
    assert len(prompts) == 50
    assert all(abs(len(prompt) - 64) <= 1 for prompt in prompts)


def test_repeated_traffic_finds_nothing_in_a_kept_engines_prefix_cache() -> None:
    """An engine stays up for the next candidate, which gets the same prompts: one that started its own would have to compute them."""
    behaviour = Behaviour()
    with servers(behaviour) as traffic:
        salts_of: list[set[str | None]] = []
        for drive in (
            lambda: run_window(traffic, workload(), INPUTS, seed=0, window_index=0),
            lambda: run_window(traffic, workload(), INPUTS, seed=0, window_index=0),
            lambda: find_capacity(traffic, workload(capacity_max_sessions=1, capacity_step_s=0.1, session_pause_s=0.01), ObjectiveSettings(), INPUTS, PAIR, seed=0),
            lambda: warm_up(traffic, workload(), INPUTS, only="vllm", turns=2),
        ):
            behaviour.salts.clear()
            drive()
            salts_of.append(set(behaviour.salts))
    assert all(len(salts) == 1 and None not in salts for salts in salts_of), "within one the cache works as it will when deployed"
    assert len(set.union(*salts_of)) == len(salts_of)


def test_warming_up_takes_the_longest_utterance_first() -> None:
    clips = [CLIPS[0], Utterance("long", np.full(16000, 0.1, dtype=np.float32), "hello world")]
    with servers(Behaviour()) as traffic:
        taken = warm_up(traffic, workload(), Inputs(clips), only="whisper", turns=2)
    assert [turn.name for turn in taken] == ["long", "a"]


def test_every_worker_of_whisper_is_warmed_though_each_clip_is_heard_once() -> None:
    """Each has memory of its own, and takes it with its first utterance: one that stays cold takes it later, beside an engine that has the rest."""
    behaviour = Behaviour(stt_s=0.2)
    with servers(behaviour) as traffic:
        answered = warm_up(traffic, workload(), INPUTS, only="whisper", turns=3, workers=2)
    assert behaviour.stt_most_at_once == 2
    assert sorted(turn.name for turn in answered) == ["a", "b", "c"]


def test_the_ramp_finds_how_many_sessions_one_at_a_time_carries() -> None:
    """Each turn holds the only worker for 100 ms; within 250 ms two can be served, three cannot."""
    objective = ObjectiveSettings(stt_latency_target_ms=250.0, llm_latency_target_ms=1000.0, ttft_target_ms=1000.0)
    settings = workload(capacity_step_s=1.0, capacity_max_sessions=6, session_pause_s=0.001)
    with servers(Behaviour(stt_s=0.1, stt_one_at_a_time=True)) as traffic:
        found = find_capacity(traffic, settings, objective, INPUTS, PAIR, seed=0)
    assert found is not None
    assert found.sessions == 2
    assert 2 < found.continuous < 3
    assert not found.at_ceiling


def test_a_ramp_that_is_aborted_has_no_capacity() -> None:
    with servers(Behaviour()) as traffic:
        assert find_capacity(traffic, workload(capacity_step_s=5.0), ObjectiveSettings(), INPUTS, PAIR, seed=0, abort=lambda: "gone") is None


@pytest.mark.parametrize(
    ("loads", "sessions", "continuous"),
    [
        ([0.5, 0.8, 1.3], 2, 2.4),
        ([2.0], 0, 0.5),
        ([4.0], 0, 0.25),
        ([math.inf], 0, 0.0),
        ([0.5, math.inf], 1, 1.0),
        ([0.5, 0.6], 2, 2.4),
    ],
)
def test_the_capacity_between_two_steps(loads: list[float], sessions: int, continuous: float) -> None:
    found = decide(loads, at_ceiling=False)
    assert found.sessions == sessions
    assert found.continuous == pytest.approx(continuous)


def test_two_ramps_that_passed_every_step_are_equal() -> None:
    """`weights: {capacity: 1}` named a winner by the fraction beyond the ramp's end, of loads of 0.43 and 0.44."""
    easy, hard = (
        with_error(replace(decide([0.2, load], at_ceiling=True), steps=(np.full((4, 3), 0.2), np.full((8, 3), load))), ObjectiveSettings())
        for load in (0.3, 0.9)
    )
    assert (easy.continuous, hard.continuous) == (2.0, 2.0)
    assert easy.interval == hard.interval == (2.0, 2.0)
    objective = ObjectiveSettings(weights={"capacity": 1.0})
    assert {evaluate({"capacity_continuous": found.continuous}, objective).fitness for found in (easy, hard)} == {2.0 / 6.0}


def test_the_ramp_runs_beside_the_background_load_of_the_windows() -> None:
    """It ran alone, so that the capacity was that of a card which no deployment has."""
    behaviour = Behaviour(stt_text="of a turn")
    ramp = {"capacity_step_s": 0.5, "capacity_max_sessions": 2, "session_pause_s": 0.01, "background_rate_per_s": 20.0, "background_prompt_tokens": 8}
    with servers(behaviour) as traffic:
        find_capacity(traffic, workload(**ramp), ObjectiveSettings(), INPUTS, PAIR, seed=0)
        beside = [prompt for prompt in behaviour.prompts if prompt != "of a turn"]
        behaviour.prompts.clear()
        find_capacity(traffic, workload(**ramp), ObjectiveSettings(), INPUTS, PAIR, seed=0)
    assert 5 <= len(beside) <= 40, "twenty a second for a second"
    assert sorted(beside) == sorted(prompt for prompt in behaviour.prompts if prompt != "of a turn"), "the same for every candidate"


def test_background_requests_in_the_way_of_turns_lower_the_capacity() -> None:
    objective = ObjectiveSettings(stt_latency_target_ms=1000.0, llm_latency_target_ms=150.0, ttft_target_ms=1000.0)
    ramp = {"capacity_step_s": 0.6, "capacity_max_sessions": 2, "session_pause_s": 0.01, "max_tokens": 2, "capacity_hopeless_load": 1.0}
    with servers(Behaviour(first_token_s=0.05, llm_one_at_a_time=True)) as traffic:
        alone = find_capacity(traffic, workload(background_rate_per_s=0.0, **ramp), objective, INPUTS, PAIR, seed=0)
        beside = find_capacity(traffic, workload(background_rate_per_s=15.0, **ramp), objective, INPUTS, PAIR, seed=0)
    assert alone is not None
    assert beside is not None
    assert beside.continuous < alone.continuous


def test_a_window_counts_by_the_language_of_its_clips() -> None:
    """Two of four characters are wrong: as one English word it would be all."""
    chinese = [Utterance("a", np.full(1600, 0.1, dtype=np.float32), "今天公园", "zh")]
    with servers(Behaviour(stt_text="今天商店")) as traffic:
        result = run_window(traffic, workload(), Inputs(chinese), seed=0, window_index=0, only="whisper")
    metrics = summarise([result]).as_metrics()
    assert (metrics["wer"], metrics["wer_unit"]) == (0.5, "character")
    assert {(turn.word_errors, turn.words) for turn in turns_by_arrival([result])} == {(2, 4)}
    assert summarise([one_window(Behaviour(), only="whisper")]).as_metrics()["wer_unit"] == "word"
    assert summarise([one_window(Behaviour(), only="vllm")]).as_metrics()["wer_unit"] is None
