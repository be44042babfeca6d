"""Windows, ramps and summaries of spaces that are not the default pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.unit.workload.servers import Answer, answering, every_protocol, parts, status, wav
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.compare.observe import turns_by_arrival
from tune_gpu.compare.records import early_remark, make_arm_record
from tune_gpu.compare.samples import Replicate
from tune_gpu.config.schema import ObjectiveSettings, WorkloadSettings
from tune_gpu.metrics import catalogue_of
from tune_gpu.services.running import Endpoint
from tune_gpu.workload import inputs as inputs_module
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.capacity import find_capacity, load_of, ratios_of, with_error
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.inputs import Inputs, load_inputs
from tune_gpu.workload.saturation import saturation_of
from tune_gpu.workload.stages import background_stages, turn_stages
from tune_gpu.workload.summary import interference, summarise
from tune_gpu.workload.texts import Text
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Turn
from tune_gpu.workload.window import WindowResult, run_window, warm_up

SERVICES = {"stt": Protocol.TRANSCRIPTION, "llm": Protocol.CHAT, "tts": Protocol.SPEECH, "embed": Protocol.EMBEDDING}
CATALOGUE = catalogue_of(SERVICES)
INPUTS = Inputs([Utterance("a", np.full(1600, 0.1, dtype=np.float32), "hello world")], [Text("short", "hello"), Text("long", "hello, how are you?")])


def workload(**change: object) -> WorkloadSettings:
    values = {"turn_rate_per_s": 20.0, "window_s": 0.4, "max_tokens": 3, "request_timeout_s": 5.0, **change}
    return WorkloadSettings(**values)  # type: ignore[arg-type]


@contextmanager
def driven(settings: WorkloadSettings, answer: Answer | None = None) -> Iterator[Traffic]:
    stages = turn_stages(settings.turn, SERVICES)
    with answering(answer or every_protocol()) as url:
        endpoints = {service: Endpoint(url, "key", "model") for service in SERVICES}
        yield Traffic(stages, endpoints, background=background_stages(settings, SERVICES, stages))


TURNS = [["llm"], ["stt"], ["tts"], ["embed"], ["stt", "llm", "tts"], ["embed", "llm"], ["stt", "embed", "llm", "tts"]]


@pytest.mark.parametrize("turn", TURNS, ids="-".join)
def test_a_window_of_any_chain_measures_every_stage_under_its_service(turn: list[str]) -> None:
    settings = workload(turn=turn)
    with driven(settings) as traffic:
        window = run_window(traffic, settings, INPUTS, seed=0, window_index=0)
        assert traffic.pulse.waiting == dict.fromkeys(turn, 0)
    assert window.mode == "mixed"
    metrics = summarise([window], CATALOGUE).as_metrics()
    assert (metrics["n_failed"], metrics["failed_requests"]) == (0, {})
    assert metrics["n_requests"] == len(window.turns) > 0
    for service in SERVICES:
        assert (metrics[f"{service}.latency_ms"] is not None) == (service in turn)
    assert metrics["turn_ms"]["p50"] > 0
    assert (metrics["llm.ttft_ms"] is not None) == (metrics["llm.tokens_per_s"] is not None) == ("llm" in turn)
    assert (metrics["tts.first_audio_ms"] is not None) == ("tts" in turn)
    assert metrics["stt.wer"] == (0.0 if turn[0] == "stt" else None)
    assert "voice_turn_ms" not in metrics


def test_a_turn_of_a_comparison_has_the_errors_of_its_recogniser() -> None:
    settings = workload(turn=["stt", "llm"])
    with driven(settings, every_protocol(transcript="hello")) as traffic:
        turns = turns_by_arrival([run_window(traffic, settings, INPUTS, seed=0, window_index=0)], CATALOGUE)
    assert {turn.errors_and_words("stt") for turn in turns} == {(1, 2)}
    assert {(turn.errors_and_words(""), turn.clip, turn.error) for turn in turns} == {((None, None), "a", None)}
    assert all(turn.values["llm.ttft_ms"] is not None and turn.values["turn_ms"] is not None for turn in turns)
    assert all(turn.values["tts.latency_ms"] is None for turn in turns)


def test_a_failure_is_named_after_the_service_and_the_rest_is_not_sent() -> None:
    settings = workload(turn=["stt", "llm", "tts"])
    with driven(settings, status(503)) as traffic:
        window = run_window(traffic, settings, INPUTS, seed=0, window_index=0)
    assert {turn.error for turn in window.turns} == {"stt_http_503"}
    assert {tuple(turn.samples) for turn in window.turns} == {("stt",)}
    metrics = summarise([window], CATALOGUE).as_metrics()
    assert metrics["failed_requests"] == {"stt_http_503": len(window.turns)}
    assert (metrics["llm.latency_ms"], metrics["turn_ms"], metrics["stt.latency_ms"]) == (None, None, None)


@pytest.mark.parametrize(("own", "asked", "sent"), [("bella", None, "bella"), ("bella", "bella", "bella"), (None, "heart", "heart"), (None, None, None)])
def test_a_request_for_speech_names_the_services_own_voice(own: str | None, asked: str | None, sent: str | None) -> None:
    received: list[dict[str, Any]] = []
    settings = workload(turn=["tts"], voice=asked)
    with answering(every_protocol(), received) as url:
        traffic = Traffic(turn_stages(["tts"], SERVICES), {"tts": Endpoint(url, "key", "model", voice=own)})
        assert warm_up(traffic, settings, INPUTS, only="tts", turns=1)[0].error is None
    assert [ask["body"].get("voice") for ask in received] == [sent]


def test_the_share_of_answers_that_ended_early_is_a_number_of_their_llm() -> None:
    settings, window = workload(turn=["llm"]), WindowResult("mixed", 1.0)
    for early in (True, True, False, False, False):
        window.turns.append(Turn(0.0, "a", "", {"llm": GenerationSample(0.0, [0.1], 1, ended_early=early)}))
    assert summarise([window], CATALOGUE).as_metrics()["llm.ended_early_pct"] == 40.0
    replicates = [Replicate("winner", 0, turns_by_arrival([window], CATALOGUE)), Replicate("baseline", 0)]
    arms = {name: make_arm_record(replicates, name, {}) for name in ("winner", "baseline")}
    assert early_remark(arms, "winner", "baseline").startswith("; llm ended its answer early in 2 of 5 turns of winner and 0 of 0 turns of baseline, so that")
    with driven(settings) as traffic:
        well = summarise([run_window(traffic, settings, INPUTS, seed=0, window_index=0)], CATALOGUE)
    assert not [name for name in well.as_metrics() if "ended_early" in name], "no key where every answer has its length"


def test_background_requests_are_measured_and_fail_under_their_service() -> None:
    settings = workload(turn=["llm"], background={"embed": 30.0, "tts": 30.0, "stt": 30.0, "llm": 30.0})
    with driven(settings) as traffic:
        well = run_window(traffic, settings, INPUTS, seed=0, window_index=0)
    assert {ask.stage.service for ask in well.background} == {*SERVICES}
    metrics = summarise([well], CATALOGUE).as_metrics()
    assert metrics["llm.background_latency_ms"]["n"] == len([ask for ask in well.background if ask.stage.service == "llm"])
    assert metrics["n_requests"] == len(well.turns) + len(well.background)
    with driven(settings, status(500)) as traffic:
        ill = run_window(traffic, settings, INPUTS, seed=0, window_index=0)
    failures = summarise([ill], CATALOGUE).failures
    assert {*failures} == {"llm_http_500", *(f"background_{service}_http_500" for service in SERVICES)}


def test_windows_of_one_service_alone_give_its_interference_ratio() -> None:
    settings = workload(turn=["embed", "llm"])
    with driven(settings, every_protocol(slow_s=0.05)) as traffic:
        mixed = summarise([run_window(traffic, settings, INPUTS, seed=0, window_index=0)], CATALOGUE)
    solo = {}
    with driven(settings) as traffic:
        for stage in traffic.stages:
            window = run_window(traffic, settings, INPUTS, seed=0, window_index=10_000, only=stage.service, seconds=0.3)
            assert window.mode == stage.label
            assert {tuple(turn.samples) for turn in window.turns} == {(stage.label,)}
            solo[stage.label] = summarise([window], CATALOGUE)
    ratios = interference(mixed, solo)
    assert {service: ratio is not None and ratio > 1.0 for service, ratio in ratios.items()} == {"stt": False, "llm": True, "tts": False, "embed": True}


def test_the_ramp_finds_the_sessions_of_an_llm_alone() -> None:
    objective = ObjectiveSettings(llm_latency_target_ms=1000.0, ttft_target_ms=1000.0)
    settings = workload(turn=["llm"], capacity_step_s=0.3, capacity_max_sessions=2, session_pause_s=0.01)
    with driven(settings) as traffic:
        found = find_capacity(traffic, settings, objective, INPUTS, CATALOGUE, seed=0)
    assert found is not None
    assert (found.sessions, found.at_ceiling) == (2, True)
    assert [step.shape[1] for step in found.steps] == [2, 2], "the answer and its first token have targets; no other service takes part"
    assert with_error(found, objective, catalogue=CATALOGUE).continuous == found.continuous


def test_the_ramp_counts_the_background_requests_of_any_service() -> None:
    settings = workload(turn=["llm"], background={"embed": 40.0}, capacity_step_s=0.5, capacity_max_sessions=1, session_pause_s=0.01)
    paths: list[str] = []
    answer = every_protocol()

    async def noted(request):  # type: ignore[no-untyped-def]
        paths.append(request.path)
        return await answer(request)

    with driven(settings, noted) as traffic:
        find_capacity(traffic, settings, ObjectiveSettings(), INPUTS, CATALOGUE, seed=0)
    assert 5 <= paths.count("/v1/embeddings") <= 45


def answered(label: str, ms: Sequence[float]) -> list[Turn]:
    return [Turn(0.0, "text", "yes", {label: GenerationSample(0.0, [each / 2e3, each / 1e3], 2)}, stages=(label,)) for each in ms]


def test_the_load_of_a_step_is_the_worst_of_the_services_that_take_part() -> None:
    objective = ObjectiveSettings(llm_latency_target_ms=1000.0, ttft_target_ms=250.0, stt_latency_target_ms=1.0)
    turns = answered("llm", [500.0] * 3)
    assert load_of(turns, objective, CATALOGUE) == pytest.approx(1.0)
    assert ratios_of(turns, objective, CATALOGUE) == pytest.approx(np.array([[0.5, 1.0]] * 3))
    two = catalogue_of({"small": Protocol.CHAT, "large": Protocol.COMPLETION})
    both = [Turn(0.0, "text", "yes", {**small.samples, **large.samples}) for small, large in zip(answered("small", [200.0]), answered("large", [800.0]), strict=True)]
    assert load_of(both, objective, two) == pytest.approx(1.6)


def test_a_target_of_one_service_counts_in_the_ramp() -> None:
    objective = ObjectiveSettings(llm_latency_target_ms=1000.0, ttft_target_ms=1000.0, targets={"llm.latency_ms": 100.0, "turn_ms": 1000.0})
    assert load_of(answered("llm", [500.0]), objective, CATALOGUE) == pytest.approx(5.0)
    assert ratios_of(answered("llm", [500.0]), objective, CATALOGUE).shape == (1, 3)


def test_a_step_of_failures_has_no_row_and_an_infinite_load() -> None:
    failed = [Turn(0.0, "text", "yes", {"llm": GenerationSample(0.0, error="timeout")}, stages=("llm",))]
    assert load_of(failed, ObjectiveSettings(), CATALOGUE) == float("inf")
    assert ratios_of(failed, ObjectiveSettings(), CATALOGUE).shape == (0, 2)
    assert len(ratios_of([], ObjectiveSettings(), CATALOGUE)) == 0


@pytest.mark.parametrize("service", ["embed", "tts", "llm", "stt"])
def test_any_service_is_warmed_by_its_longest_input_once_a_worker(service: str) -> None:
    settings = workload(turn=["llm"], background={"embed": 1.0, "tts": 1.0, "stt": 1.0})
    with driven(settings) as traffic:
        taken = warm_up(traffic, settings, INPUTS, only=service, turns=2, workers=3)
    assert [turn.name for turn in taken] == (["a", "a"] if service == "stt" else ["long", "short"])
    assert [turn.error for turn in taken] == [None, None]


def test_saturation_is_judged_whatever_the_stages_are() -> None:
    settings = workload(turn=["embed", "llm"])
    with driven(settings) as traffic:
        found = saturation_of([run_window(traffic, settings, INPUTS, seed=0, window_index=0)])
    assert found is not None
    assert (found.saturated, found.answered_in_time) == (False, found.offered)


def test_texts_alone_need_no_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> list[Utterance]:
        raise UserError("the package with the clips is not installed")

    monkeypatch.setattr(inputs_module, "load_utterances", missing)
    found = load_inputs(workload(), turn_stages(["embed", "llm", "tts"], SERVICES))
    assert (len(found.clips), len(found.texts) >= 24) == (0, True)
    with pytest.raises(UserError, match="not installed"):
        load_inputs(workload(), turn_stages(["stt", "llm"], SERVICES))


def test_speech_is_heard_by_the_recogniser_behind_it() -> None:
    """The audio of one service is the clip of the next, whatever form it was sent in."""
    settings = workload(turn=["tts", "stt"])
    for answer in (every_protocol(), _pcm(every_protocol())):
        with driven(settings, answer) as traffic:
            window = run_window(traffic, settings, INPUTS, seed=0, window_index=0)
        assert {turn.error for turn in window.turns} == {None}
        assert summarise([window], CATALOGUE).as_metrics()["stt.wer"] is None, "what was said is not what was put in"


def _pcm(answer: Answer) -> Answer:
    async def changed(request):  # type: ignore[no-untyped-def]
        if request.path == "/v1/audio/speech":
            return await parts(wav(0.2)[44:], content_type="audio/pcm")(request)
        return await answer(request)

    return changed
