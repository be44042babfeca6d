"""One turn: an utterance or a text goes through the stages, each of which gets what the one before answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tune_gpu.common.metric import Metric
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.clients.call import Sample
from tune_gpu.workload.clients.speech import SpeechSample
from tune_gpu.workload.clients.transcription import TranscriptionSample
from tune_gpu.workload.inputs import Item
from tune_gpu.workload.traffic import Traffic


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

    @property
    def error(self) -> str | None:
        """Return which request failed and how (`stt_timeout`, `llm_http_500`, `shed`), or None."""
        if self.shed:
            return "shed"
        return next((f"{label}_{sample.error}" for label, sample in self.samples.items() if sample.error), None)

    @property
    def answered_at(self) -> float | None:
        """Return when its last service had answered (monotonic clock, seconds), or None."""
        return None if self.error or not self.samples else self._last.done

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
