"""What a turn may pass: each bad input is one line that names the key and says what to do."""

from __future__ import annotations

import pytest

from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.config.loader import DEFAULT_SPACE, load_config
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.experiment.checks import check_config
from tune_gpu.experiment.traffic_check import check_traffic
from tune_gpu.metrics import DEFAULT_PAIR
from tune_gpu.workload.stages import Medium, Services, background_stages, stages_of, turn_stages

SERVICES: Services = {
    "stt": Protocol.TRANSCRIPTION, "llm": Protocol.CHAT, "tts": Protocol.SPEECH, "embed": Protocol.EMBEDDING, "guard": Protocol.COMPLETION, "quiet": None,
}  # fmt: skip


def test_the_default_pair_speaks_to_whisper_and_then_to_the_llm() -> None:
    stages = stages_of(load_config(DEFAULT_SPACE, [], "cpu"))
    assert [(stage.service, stage.label, stage.protocol) for stage in stages] == [
        ("whisper", "stt", Protocol.TRANSCRIPTION), ("vllm", "llm", Protocol.COMPLETION),
    ]  # fmt: skip


@pytest.mark.parametrize("turn", [["llm"], ["stt", "llm"], ["stt", "llm", "tts"], ["embed", "llm"], ["tts", "stt"], ["stt", "embed", "guard", "tts"]])
def test_a_chain_whose_services_fit_together_is_a_turn(turn: list[str]) -> None:
    stages = turn_stages(turn, SERVICES)
    assert [stage.label for stage in stages] == turn


def test_the_one_service_with_an_api_is_the_turn_of_its_space() -> None:
    (stage,) = turn_stages(None, {"llm": Protocol.CHAT, "quiet": None})
    assert (stage.service, stage.takes, stage.gives) == ("llm", Medium.TEXT, Medium.TEXT)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (["sst", "llm"], r"workload\.turn=\[sst, llm\]: no service sst \(did you mean stt\?\)\. Use one of stt, llm, tts, embed, guard, quiet\."),
        (["llm", "quiet"], r"workload\.turn=\[llm, quiet\]: quiet has no API that could be driven\. Leave it out\."),
        (["llm", "stt"], r"workload\.turn=\[llm, stt\]: stt \(transcription\) takes audio, but llm \(chat\) before it answers with text\. Change the order"),
        (["tts", "llm"], r"llm \(chat\) takes text, but tts \(speech\) before it answers with audio\."),
        (["stt", "tts", "embed"], r"embed \(embedding\) takes text, but tts \(speech\) before it answers with audio\."),
        ([], r"workload\.turn=\[\]: no service\. Name at least one\."),
        (["llm", "tts", "stt", "llm"], r"llm is named twice\."),
        (None, r"workload\.turn: not given, and 5 services could be driven\. Set the order of a turn, for example \[stt, llm, tts, embed, guard\]\."),
    ],
)
def test_a_turn_that_cannot_be_is_one_clear_line(turn: list[str] | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        turn_stages(turn, SERVICES)
    assert "\n" not in str(caught.value)


def test_a_space_without_any_api_has_nothing_to_drive() -> None:
    with pytest.raises(UserError, match=r"workload\.turn: no service has an API that could be driven, so nothing can be measured\."):
        turn_stages(None, {"quiet": None})


def beside(services: Services, turn: list[str] | None, **workload: object) -> list[str]:
    settings = WorkloadSettings(**workload)  # type: ignore[arg-type]
    return [stage.service for stage in background_stages(settings, services, turn_stages(turn, services))]


def test_background_requests_go_to_the_services_that_are_named() -> None:
    assert beside(SERVICES, ["llm"], background={"embed": 2.0, "tts": 0.0}) == ["embed"]
    assert beside(SERVICES, ["stt", "llm"], background_rate_per_s=1.0, background={"embed": 2.0}) == ["llm", "embed"]
    assert beside(DEFAULT_PAIR, None, background_rate_per_s=1.0) == ["vllm"]
    assert beside(DEFAULT_PAIR, None) == []


@pytest.mark.parametrize(
    ("workload", "turn", "message"),
    [
        ({"background": {"embd": 1.0}}, ["llm"], r"workload\.background: no service embd \(did you mean embed\?\)"),
        ({"background": {"quiet": 1.0}}, ["llm"], r"workload\.background: quiet has no API"),
        ({"background_rate_per_s": 1.0}, ["stt"], r"workload\.background_rate_per_s=1: a turn has 0 LLMs.*Set it to 0, and name a service in workload\.background\."),
        ({"background_rate_per_s": 1.0}, ["llm", "guard"], r"workload\.background_rate_per_s=1: a turn has 2 LLMs"),
        ({"background_rate_per_s": 1.0, "background": {"llm": 0.0}}, ["llm"], r"workload\.background\.llm gives the same rate\. Remove one of them\."),
    ],
)
def test_background_requests_for_nobody_are_one_clear_line(workload: dict[str, object], turn: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        beside(SERVICES, turn, **workload)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workload.turn=[vllm]"], r"objective\.weights\.stt_latency=.*: whisper is not a stage of a turn \(workload\.turn=\[vllm\]\), so it is not measured"),
        (["workload.turn=[whisper]", "workload.background_rate_per_s=0"], r"objective\.weights\.llm_latency=.*: vllm is not a stage of a turn"),
        (["workload.turn=[vllm]", "objective.weights={llm_latency: 1}", "search.objectives={wer: min, llm_latency_ms.p95: min}"],
         r"search\.objectives\.wer: whisper is not a stage of a turn"),
        (["workload.turn=[vllm]", "objective.weights={llm_latency: 1}", "objective.limits={stt_latency_ms.p95: 300}"],
         r"objective\.limits\.stt_latency_ms\.p95: whisper is not a stage"),
    ],
)
def test_what_no_turn_measures_cannot_be_judged(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_config(load_config(DEFAULT_SPACE, overrides, "cpu"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workload.background={}"], r"objective\.weights\.draft\.background=0\.2: draft gets no background requests.*Set workload\.background\.draft, or"),
        (["objective.weights={draft.latency: 1}"], r"objective\.weights\.draft\.latency=1: draft is not a stage of a turn \(workload\.turn=\[chat\]\)"),
        (["objective.limits.draft.ttft_ms.p95=300"], r"objective\.limits\.draft\.ttft_ms\.p95: draft is not a stage of a turn"),
    ],
)
def test_a_service_beside_the_turns_is_judged_by_its_own_requests(overrides: list[str], message: str) -> None:
    check_traffic(load_config("two_llms", [], "cpu"))
    with pytest.raises(UserError, match=message):
        check_traffic(load_config("two_llms", overrides, "cpu"))


def test_one_service_of_the_default_pair_can_be_driven_alone() -> None:
    overrides = ["traffic.turn=[vllm]", "objective.weights={llm_latency: 1}"]
    check_config(load_config(DEFAULT_SPACE, overrides, "cpu"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("workload.turn=[whisper,vlm]", r"no service vlm \(did you mean vllm\?\)\. Use one of whisper, vllm"),
        ("workload.turn=[vllm,whisper]", r"whisper \(transcription\) takes audio, but vllm \(completion\)"),
        ("workload.background={whisperr: 1}", r"workload\.background: no service whisperr \(did you mean whisper\?\)"),
        ("workload.background={whisper: -1}", r"workload\.background\.whisper=-1"),
        ("workload.turn=vllm", r"workload\.turn=vllm: not a list\. Set a list such as \[vllm\]\."),
        ("workload.kind=session", r"workload\.kind=session: not allowed\. Set one of requests"),
        ("workload.texts.source=/nowhere/texts", r"workload\.texts\.source=/nowhere/texts: .*No such file"),
    ],
)
def test_a_bad_turn_is_refused_before_anything_starts(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_config(load_config(DEFAULT_SPACE, [override], "cpu"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["traffic.voice=bella"], r"^traffic\.voice=bella: tts is set to the voice heart, which requests ask for\. Leave traffic\.voice out"),
        (
            ["traffic.voice=heart", "parameters.voice={target: tts.settings.voice, values: [heart, bella]}", "baseline.voice=heart"],
            r"^traffic\.voice=heart: parameters\.voice varies tts\.settings\.voice, and each candidate is asked for its own voice",
        ),
    ],
)
def test_a_voice_of_the_traffic_must_not_contradict_the_services_own(overrides: list[str], message: str) -> None:
    check_config(load_config("voice_assistant", ["traffic.voice=heart"], "cpu"))
    with pytest.raises(UserError, match=message):
        check_config(load_config("voice_assistant", overrides, "cpu"))
