"""Summarise the results of windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.config.languages import error_unit
from tune_gpu.workload.percentiles import Distribution
from tune_gpu.workload.voice_turn import TurnSample
from tune_gpu.workload.wer import word_error_rate
from tune_gpu.workload.window import WindowResult


@dataclass(frozen=True)
class TrafficSummary:
    """Latencies, throughput and quality of one or more windows. None is a value that was not measured."""

    stt_latency_ms: Distribution | None
    rtf: Distribution | None
    ttft_ms: Distribution | None
    itl_ms: Distribution | None
    llm_latency_ms: Distribution | None
    """Latency of the voice turns' answers: transcript to last token."""
    voice_turn_ms: Distribution | None
    background_latency_ms: Distribution | None
    tokens_per_s: float | None
    wer: float | None
    wer_unit: str | None
    """`word`, or `character` in languages whose writing does not separate words: `wer` is then a character error rate."""
    n_transcripts: int
    """Number of transcripts in the error rate."""
    n_requests: int
    n_failed: int
    failures: dict[str, int]
    generator_lag_ms: Distribution | None

    @property
    def failed_pct(self) -> float:
        """Return the share of requests that failed, in per cent."""
        return 100.0 * self.n_failed / self.n_requests if self.n_requests else 0.0

    def as_metrics(self) -> dict[str, Any]:
        """Return the metrics under their names in the artifacts."""
        distributions = (
            "stt_latency_ms",
            "rtf",
            "ttft_ms",
            "itl_ms",
            "llm_latency_ms",
            "voice_turn_ms",
            "background_latency_ms",
            "generator_lag_ms",
        )
        values = {name: getattr(self, name) for name in distributions}
        return {
            **{name: None if value is None else value.as_dict() for name, value in values.items()},
            "tokens_per_s": None if self.tokens_per_s is None else round(self.tokens_per_s, 2),
            "wer": None if self.wer is None else round(self.wer, 4),
            "wer_unit": self.wer_unit,
            "n_transcripts": self.n_transcripts,
            "n_requests": self.n_requests,
            "n_failed": self.n_failed,
            "failed_requests": self.failures,
        }


def summarise(windows: Sequence[WindowResult], *, extra_turns: Sequence[TurnSample] = ()) -> TrafficSummary:
    """Pool the raw samples of the windows, and take percentiles of the samples.

    Args:
        windows: the measured windows.
        extra_turns: turns outside of any window, whose transcripts count for the word error rate and for nothing else.
    """
    turns = [turn for window in windows for turn in window.turns]
    background = [ask for window in windows for ask in window.background]
    answers = [turn.llm for turn in turns if turn.llm is not None]
    heard = [turn for turn in (*extra_turns, *turns) if turn.stt is not None and turn.stt.error in (None, "empty_transcript")]
    language = heard[0].language if heard else "en"  # all clips of a run are in one language
    failures = Counter([turn.error for turn in turns if turn.error] + [f"background_{ask.error}" for ask in background if ask.error])
    tokens = sum(answer.n_tokens for answer in (*answers, *background) if answer.error is None)
    seconds = sum(window.seconds for window in windows)
    return TrafficSummary(
        stt_latency_ms=_of(turn.stt.latency_ms for turn in turns if turn.stt is not None),
        rtf=_of(turn.stt.rtf for turn in turns if turn.stt is not None),
        ttft_ms=_of(answer.ttft_ms for answer in answers),
        itl_ms=_of(gap for answer in (*answers, *background) for gap in answer.itl_ms),
        llm_latency_ms=_of(answer.latency_ms for answer in answers),
        voice_turn_ms=_of(turn.voice_turn_ms for turn in turns),
        background_latency_ms=_of(ask.latency_ms for ask in background),
        tokens_per_s=tokens / seconds if seconds and (answers or background) else None,
        wer=word_error_rate([turn.reference for turn in heard], [turn.stt.text for turn in heard if turn.stt is not None], language),
        wer_unit=error_unit(language) if heard else None,
        n_transcripts=len(heard),
        n_requests=len(turns) + len(background),
        n_failed=sum(failures.values()),
        failures=dict(failures),
        generator_lag_ms=_of(lag for window in windows for lag in window.lag_ms),
    )


def _of(samples: Iterable[float | None]) -> Distribution | None:
    return Distribution.of([sample for sample in samples if sample is not None])


def interference(mixed: TrafficSummary, solo: dict[str, TrafficSummary]) -> dict[str, float | None]:
    """Return the cost of sharing: mixed p95 / solo p95 of each service's latency, None if one was not measured."""
    pairs = {"stt": ("stt", "stt_latency_ms"), "llm": ("llm", "llm_latency_ms")}
    ratios: dict[str, float | None] = {}
    for name, (mode, metric) in pairs.items():
        alone = getattr(solo[mode], metric) if mode in solo else None
        together = getattr(mixed, metric)
        ratios[name] = round(together.p95 / alone.p95, 3) if alone and together and alone.p95 > 0 else None
    return ratios
