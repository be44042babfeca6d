"""A turn is a chain: each stage is due when the one before it answered, gets what that one answered, and is not sent after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.clients.call import Audio, Content, Sample
from tune_gpu.workload.clients.chat import Chat
from tune_gpu.workload.clients.embedding import EmbeddingSample
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.clients.speech import SpeechSample
from tune_gpu.workload.clients.transcription import TranscriptionSample
from tune_gpu.workload.stages import Medium, Stage
from tune_gpu.workload.texts import Text
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Turn, take_turn

DRIVEN = (Protocol.TRANSCRIPTION, Protocol.CHAT, Protocol.COMPLETION, Protocol.SPEECH, Protocol.EMBEDDING)


@dataclass(frozen=True)
class Recording:
    """An input of both media."""

    name: str = "input"
    reference: str = "what is said"
    language: str = "en"
    length: float = 1.0

    def content(self, medium: Medium) -> Content:
        return self.reference if medium is Medium.TEXT else Audio(b"clip", 1.0)


@dataclass(frozen=True)
class Planned(Traffic):
    """Services whose answers are planned: the seconds to the first output and to the end, and how they fail. Nothing is sent."""

    answers: Mapping[str, tuple[float, float, str | None]] = field(default_factory=dict)
    asked: list[tuple[str, Content, float]] = field(default_factory=list)

    async def ask(self, session: Any, stage: Stage, content: Content | Chat, workload: WorkloadSettings, *, due: float, **_ends: Any) -> Sample:
        assert not isinstance(content, Chat)
        self.asked.append((stage.service, content, due))
        first_s, more_s, error = self.answers[stage.service]
        first, done = due + first_s, due + first_s + more_s
        if stage.protocol is Protocol.TRANSCRIPTION:
            return TranscriptionSample(due, None if error else done, f"heard by {stage.service}", 1.0, error=error)
        if stage.protocol is Protocol.SPEECH:
            return SpeechSample(due, first, None if error else done, 10, 1.0, error, None if error else Audio(stage.service.encode(), 1.0))
        if stage.protocol is Protocol.EMBEDDING:
            return EmbeddingSample(due, None if error else done, str(content), 3, error)
        return GenerationSample(due, [first, done], 2, error, f"said by {stage.service}")


@st.composite
def chains(draw: st.DrawFn) -> Planned:
    stages: list[Stage] = []
    for number in range(draw(st.integers(1, 5))):
        fitting = [each for each in DRIVEN if not stages or Stage("", "", each).takes is stages[-1].gives]
        stages.append(Stage(f"service-{number}", f"label-{number}", draw(st.sampled_from(fitting))))
    seconds = st.floats(0.0, 10.0, allow_nan=False)
    errors = st.one_of(st.none(), st.none(), st.sampled_from(["timeout", "http_500", "connection", "bad_payload"]))
    return Planned(tuple(stages), {}, answers={stage.service: (draw(seconds), draw(seconds), draw(errors)) for stage in stages})


def taken(traffic: Planned, due: float = 1000.0, only: str | None = None) -> Turn:
    return asyncio.run(take_turn(None, traffic, WorkloadSettings(), Recording(), due=due, only=only))  # type: ignore[arg-type]


@given(chains(), st.floats(0.0, 1e6, allow_nan=False))
def test_each_stage_is_due_when_the_one_before_it_answered(traffic: Planned, due: float) -> None:
    turn = taken(traffic, due)
    expected = due
    for stage, (service, _, asked_at) in zip(traffic.stages, traffic.asked, strict=False):
        sample = turn.samples[stage.label]
        assert service == stage.service
        assert asked_at == sample.due == expected
        if sample.done is not None:
            expected = sample.done


@given(chains())
def test_no_latency_is_negative_and_together_they_are_the_turn(traffic: Planned) -> None:
    turn = taken(traffic)
    latencies = [sample.latency_ms for sample in turn.samples.values()]
    assert all(latency is None or latency >= 0.0 for latency in latencies)
    if turn.error is None:
        assert turn.answered_at is not None
        assert turn.turn_ms is not None
        assert sum(latency or 0.0 for latency in latencies) == pytest.approx((turn.answered_at - turn.due) * 1e3, abs=1e-6)
        assert 0.0 <= turn.turn_ms <= (turn.answered_at - turn.due) * 1e3 + 1e-6


@given(chains())
def test_after_a_stage_that_failed_no_other_is_sent(traffic: Planned) -> None:
    turn = taken(traffic)
    failing = next(((at, stage) for at, stage in enumerate(traffic.stages) if traffic.answers[stage.service][2]), None)
    if failing is None:
        assert turn.error is None
        assert [*turn.samples] == [stage.label for stage in traffic.stages]
        return
    at, stage = failing
    assert [service for service, _, _ in traffic.asked] == [each.service for each in traffic.stages[: at + 1]]
    assert turn.error == f"{stage.label}_{traffic.answers[stage.service][2]}"
    assert (turn.turn_ms, turn.answered_at) == (None, None)


@given(chains())
def test_each_stage_gets_what_the_one_before_it_answered(traffic: Planned) -> None:
    taken(traffic)
    expected: Content = Recording().content(traffic.stages[0].takes)
    for stage, (_, content, _) in zip(traffic.stages, traffic.asked, strict=False):
        assert content == expected
        name = stage.service
        answers: dict[Protocol, Content] = {
            Protocol.TRANSCRIPTION: f"heard by {name}", Protocol.SPEECH: Audio(name.encode(), 1.0), Protocol.EMBEDDING: content,
        }  # fmt: skip
        expected = answers.get(stage.protocol, f"said by {name}")


@given(chains(), st.data())
def test_a_service_alone_has_a_latency_and_no_turn(traffic: Planned, data: st.DataObject) -> None:
    stage = data.draw(st.sampled_from(traffic.stages))
    turn = taken(traffic, only=stage.service)
    assert [*turn.samples] == [stage.label]
    assert turn.turn_ms is None or len(traffic.stages) == 1
    assert turn.samples[stage.label].due == 1000.0


@given(chains())
def test_a_turn_keeps_no_audio(traffic: Planned) -> None:
    turn = taken(traffic)
    assert not [sample for sample in turn.samples.values() if isinstance(sample.output, Audio)]


@pytest.mark.parametrize(("protocols", "transcript"), [
    ([Protocol.TRANSCRIPTION, Protocol.CHAT], "heard by service-0"), ([Protocol.SPEECH, Protocol.TRANSCRIPTION], None), ([Protocol.CHAT], None),
])  # fmt: skip
def test_only_what_was_understood_of_the_input_is_compared_with_it(protocols: Sequence[Protocol], transcript: str | None) -> None:
    stages = tuple(Stage(f"service-{number}", f"label-{number}", protocol) for number, protocol in enumerate(protocols))
    assert taken(Planned(stages, {}, answers={stage.service: (0.1, 0.1, None) for stage in stages})).transcript == transcript


def test_a_turn_that_was_shed_has_failed_and_has_no_time() -> None:
    turn = Turn(0.0, "clip", "yes", shed=True, stages=("stt", "llm"))
    assert (turn.error, turn.turn_ms, turn.voice_turn_ms, turn.answered_at, turn.transcript) == ("shed", None, None, None, None)


def test_a_text_is_no_audio() -> None:
    with pytest.raises(ValueError, match="text-1 is a text"):
        Text("text-1", "hello").content(Medium.AUDIO)
