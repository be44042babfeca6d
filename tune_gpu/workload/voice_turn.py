"""One voice turn: an utterance to Whisper, its transcript to the LLM, the answer streamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp

from tune_gpu.common.metric import Metric
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.clients import Endpoints, LlmSample, SttSample, complete, transcribe


@dataclass
class TurnSample:
    """The samples of one turn. `due` is the end of speech (monotonic clock, seconds)."""

    due: float
    utterance: str
    reference: str
    stt: SttSample | None = None
    llm: LlmSample | None = None
    shed: bool = False
    """The turn was due while too many turns were in flight. That is a failure of the system under test, and counts as one."""
    language: str = "en"
    """Language of the reference."""

    @property
    def error(self) -> str | None:
        """Return which request failed and how (`stt_timeout`, `llm_http_500`, `shed`), or None."""
        if self.shed:
            return "shed"
        if self.stt is not None and self.stt.error:
            return f"stt_{self.stt.error}"
        if self.llm is not None and self.llm.error:
            return f"llm_{self.llm.error}"
        return None

    @property
    def answered_at(self) -> float | None:
        """Return when its last service had answered (monotonic clock, seconds), or None."""
        if self.error:
            return None
        if self.llm is not None:
            return self.llm.chunk_times[-1] if self.llm.chunk_times else None
        return self.stt.done if self.stt is not None else None

    @property
    def voice_turn_ms(self) -> float | None:
        """Return the milliseconds from the end of speech to the answer's first token, or None."""
        if self.error or self.stt is None or self.llm is None or not self.llm.chunk_times:
            return None
        return (self.llm.chunk_times[0] - self.due) * 1e3


def sample_of(turn: TurnSample, metric: Metric) -> float | None:
    """Return the sample of a metric in this turn (`Metric.of_turn`), or None where the turn has none."""
    value: Any = turn
    for attribute in metric.of_turn.split("."):
        value = None if value is None else getattr(value, attribute)
    return None if value is None else float(value)


async def take_turn(
    session: aiohttp.ClientSession,
    endpoints: Endpoints,
    utterance: Utterance,
    *,
    due: float,
    max_tokens: int,
    timeout_s: float,
    mode: str = "mixed",
) -> TurnSample:
    """Take one turn that was due at `due`. Mode `stt` ends with the transcript; mode `llm` sends the reference as if it were the
    transcript.

    The request to the LLM is due when the transcript has arrived, so that its latencies are its own.
    """
    turn = TurnSample(due, utterance.name, utterance.reference, language=utterance.language)
    prompt, asked = utterance.reference, due
    if mode != "llm":
        turn.stt = await transcribe(session, endpoints, utterance.wav_bytes, audio_s=utterance.duration_s, due=due, timeout_s=timeout_s)
        if turn.stt.error or turn.stt.done is None:
            return turn
        prompt, asked = turn.stt.text, turn.stt.done
    if mode != "stt":
        turn.llm = await complete(session, endpoints, prompt, max_tokens=max_tokens, due=asked, timeout_s=timeout_s)
    return turn
