"""One turn: an utterance or a text goes through the stages, each of which gets what the one before answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp

from tune_gpu.common.metric import Metric
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.clients.call import Sample, ms_between
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.clients.speech import SpeechSample
from tune_gpu.workload.clients.transcription import TranscriptionSample
from tune_gpu.workload.inputs import Item
from tune_gpu.workload.traffic import Traffic


class Purpose(StrEnum):
    """Why a turn has more requests than stages."""

    TOOL = "tool"
    """The LLM calls a tool; its request with the result is the stage's own."""
    PREEMPTIVE = "preemptive"
    """The LLM is asked with what was said so far, and the answer is thrown away."""
    SENTENCE = "sentence"
    """A sentence behind the first, which is the stage's own, is synthesised."""


@dataclass(frozen=True)
class FurtherRequest:
    """A request of a turn beside those of its stages."""

    label: str
    """Of the stage."""
    purpose: Purpose
    sample: Sample


@dataclass(frozen=True)
class Place:
    """Where in the traffic a turn of a session stands."""

    session: str
    number: int
    """In its session, from 0. Turns of the past count."""
    profile: str
    returning: bool
    """Its session has a history, which a prefix cache may hold."""


@dataclass
class Turn:
    """The samples of one turn. `due` is when its input was complete, the end of speech for example (monotonic clock, seconds)."""

    due: float
    name: str
    """Of the input."""
    reference: str
    """What is said in the input."""
    samples: dict[str, Sample] = field(default_factory=dict)
    """Label of a stage -> its sample, in the order of sending. A stage after one that failed has none."""
    shed: bool = False
    """The turn was due while too many turns were in flight. That is a failure of the system under test, and counts as one."""
    language: str = "en"
    """Language of the reference."""
    stages: tuple[str, ...] = ()
    """Labels of all stages of a whole turn; a turn of one service alone lacks some."""
    place: Place | None = None
    """None for a turn that belongs to no session."""
    further: list[FurtherRequest] = field(default_factory=list)
    """In the order of sending."""
    heard_from: float | None = None
    """When the caller began to hear the answer: its first audio, or its first sentence if none is synthesised (monotonic clock, seconds)."""
    stalls_s: tuple[float, ...] = ()
    """Pauses of the playback, each because the next audio was not there in time, in seconds."""
    interrupted: bool = False
    """The caller spoke into the answer, and what was left of it was cancelled."""
    censored: bool = False
    """The end of its window cut it: it neither succeeded nor failed."""

    @property
    def requests(self) -> list[tuple[str, Sample]]:
        """Return all requests with the labels of their stages."""
        return [*self.samples.items(), *((other.label, other.sample) for other in self.further)]

    @property
    def voice_to_voice_ms(self) -> float | None:
        """Return the milliseconds from the end of speech until the answer was heard, or None if it failed."""
        return ms_between(self.due, self.heard_from, self.error)

    @property
    def stall_ms(self) -> float | None:
        """Return the milliseconds for which the playback stood still, or None if nothing was heard."""
        return None if self.error or self.heard_from is None else 1e3 * sum(self.stalls_s)

    @property
    def answers(self) -> list[GenerationSample]:
        """Return all answers of LLMs, in the order of being due."""
        return sorted((sample for _, sample in self.requests if isinstance(sample, GenerationSample)), key=lambda sample: sample.due)

    @property
    def prompt_tokens(self) -> int | None:
        """Return the tokens of its longest prompt, or None if the server reports none."""
        return max((answer.prompt_tokens for answer in self.answers if answer.prompt_tokens is not None), default=None)

    @property
    def n_cancelled(self) -> int:
        """Return how many requests were cancelled or thrown away."""
        return sum(self._wasted(sample) for _, sample in self.requests)

    @property
    def wasted_tokens(self) -> int:
        """Return the tokens that arrived of answers that were cancelled or thrown away."""
        return sum(answer.n_tokens for answer in self.answers if self._wasted(answer))

    def _wasted(self, sample: Sample) -> bool:
        thrown_away = any(other.sample is sample and other.purpose is Purpose.PREEMPTIVE for other in self.further)
        return thrown_away or (isinstance(sample, (GenerationSample, SpeechSample)) and sample.cancelled)

    @property
    def error(self) -> str | None:
        """Return which request failed and how (`stt_timeout`, `llm_http_500`, `shed`), or None."""
        if self.shed:
            return "shed"
        needed = [*self.samples.items(), *((other.label, other.sample) for other in self.further if other.purpose is not Purpose.PREEMPTIVE)]
        return next((f"{label}_{sample.error}" for label, sample in needed if sample.error), None)

    @property
    def answered_at(self) -> float | None:
        """Return when its last service had answered (monotonic clock, seconds), or None."""
        if self.error or not self.samples:
            return None
        return max((sample.done for _, sample in self.requests if sample.done is not None), default=None) if self.further else self._last.done

    @property
    def turn_ms(self) -> float | None:
        """Return the milliseconds from the due time to the first output of the last stage, or None unless all stages answered."""
        if self.error or not self.samples or any(label not in self.samples for label in self.stages):
            return None
        first = self._last.first_output
        return None if first is None else (first - self.due) * 1e3

    @property
    def voice_turn_ms(self) -> float | None:
        """Return `turn_ms` under the name that it has for the default pair."""
        return self.turn_ms

    @property
    def transcript(self) -> str | None:
        """Return what a service understood of the input, which may be nothing, or None if the input was not transcribed.

        A transcription behind other stages is none of the input, so the reference says nothing of it.
        """
        first = next(iter(self.samples.values()), None)
        return first.text if isinstance(first, TranscriptionSample) and first.error in (None, "empty_transcript") else None

    @property
    def _last(self) -> Sample:
        return self.samples[next(reversed(self.samples))]


def sample_of(turn: Turn, metric: Metric) -> float | None:
    """Return the sample of a metric in this turn (`Metric.of_turn`), or None where the turn has none."""
    label, _, attribute = metric.of_turn.rpartition(".")
    measured: Any = turn.samples.get(label) if label else turn
    value = None if measured is None else getattr(measured, attribute)
    return None if value is None else float(value)


async def take_turn(
    session: aiohttp.ClientSession, traffic: Traffic, workload: WorkloadSettings, item: Item, *, due: float, only: str | None = None
) -> Turn:
    """Take one turn that was due at `due`.

    Each stage is due when the one before it has answered, so that its latencies are its own. After a stage that failed none is sent.

    Args:
        session: of the client.
        traffic: where the stages answer.
        workload: length and time-out of the requests.
        item: the input of the first stage.
        due: when the input was complete (monotonic clock, seconds).
        only: a service that gets the input alone, as if it were its stage's turn.
    """
    turn = Turn(due, item.name, item.reference, language=item.language, stages=tuple(stage.label for stage in traffic.stages))
    chain = traffic.chain(only)
    content, asked = item.content(chain[0].takes), due
    for stage in chain:
        sample = turn.samples[stage.label] = await traffic.ask(session, stage, content, workload, due=asked)
        if sample.error or sample.done is None or sample.output is None:
            break
        content, asked = sample.output, sample.done
    for sample in turn.samples.values():
        if isinstance(sample, SpeechSample):
            sample.output = None
    return turn
