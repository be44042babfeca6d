"""Summarise the results of windows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.common.metric import Metric
from tune_gpu.config.languages import error_unit
from tune_gpu.metrics import BACKGROUND_LATENCY, ERROR_UNIT, GENERATOR_LAG, ITL, LLM_LATENCY, N_CLIPS, N_WORDS, STT_LATENCY, every, of_turns
from tune_gpu.workload.percentiles import Distribution
from tune_gpu.workload.voice_turn import TurnSample, sample_of
from tune_gpu.workload.wer import word_error_rate, word_errors
from tune_gpu.workload.window import WindowResult

_NOISE = re.compile(r"@[-+.e\d]+dB$")
"""End of an utterance's name that says how much noise was added to its clip."""


@dataclass(frozen=True)
class TrafficSummary:
    """Latencies, throughput and quality of one or more windows. None is a value that was not measured."""

    distributions: Mapping[str, Distribution | None]
    """Name -> samples, of each metric of the catalogue that has many."""
    tokens_per_s: float | None
    wer: float | None
    wer_unit: str | None
    """`word`, or `character` in languages whose writing does not separate words: `wer` is then a character error rate."""
    n_transcripts: int
    """Number of transcripts in the error rate."""
    n_requests: int
    n_failed: int
    failures: dict[str, int]
    n_clips: int = 0
    """Different clips in the error rate: a clip that is heard again says little that is new."""
    n_words: int = 0
    """Words (or characters) of those clips."""

    def of(self, metric: Metric) -> Distribution | None:
        """Return the samples of a metric."""
        return self.distributions.get(metric.name)

    @property
    def failed_pct(self) -> float:
        """Return the share of requests that failed, in per cent."""
        return 100.0 * self.n_failed / self.n_requests if self.n_requests else 0.0

    def as_metrics(self) -> dict[str, Any]:
        """Return the metrics under their names in the artifacts."""
        return {
            **{name: None if value is None else value.as_dict() for name, value in self.distributions.items()},
            "tokens_per_s": None if self.tokens_per_s is None else round(self.tokens_per_s, 2),
            "wer": None if self.wer is None else round(self.wer, 4),
            ERROR_UNIT: self.wer_unit,
            "n_transcripts": self.n_transcripts,
            N_CLIPS.name: self.n_clips,
            N_WORDS.name: self.n_words,
            "n_requests": self.n_requests,
            "n_failed": self.n_failed,
            "failed_requests": self.failures,
        }


def with_transcript(windows: Sequence[WindowResult], extra_turns: Sequence[TurnSample] = ()) -> list[TurnSample]:
    """Return the turns that have a transcript, which may be empty."""
    turns = (*extra_turns, *(turn for window in windows for turn in window.turns))
    return [turn for turn in turns if turn.stt is not None and turn.stt.error in (None, "empty_transcript")]


def rates_without_clips(windows: Sequence[WindowResult], extra_turns: Sequence[TurnSample] = ()) -> dict[str, float]:
    """Return for each clip the word error rate without it; noise added to a clip makes no other clip of it. Empty for a single clip."""
    counted = _by_clip(with_transcript(windows, extra_turns))
    totals = {clip: (sum(errors for errors, _ in of), sum(words for _, words in of)) for clip, of in counted.items()}
    all_errors, all_words = (sum(total[at] for total in totals.values()) for at in (0, 1))
    return {clip: (all_errors - errors) / (all_words - words) for clip, (errors, words) in totals.items()} if len(totals) > 1 else {}


def _by_clip(turns: Iterable[TurnSample]) -> dict[str, list[tuple[int, int]]]:
    """Return the errors and words of each transcript by its clip, whatever noise was added to that."""
    counted: dict[str, list[tuple[int, int]]] = {}
    for turn in turns:
        if turn.stt is not None:
            counted.setdefault(_NOISE.sub("", turn.utterance), []).append(word_errors(turn.reference, turn.stt.text, turn.language))
    return counted


def summarise(windows: Sequence[WindowResult], *, extra_turns: Sequence[TurnSample] = ()) -> TrafficSummary:
    """Pool the raw samples of the windows, and take percentiles of the samples.

    Args:
        windows: the measured windows.
        extra_turns: turns outside of any window, whose transcripts count for the word error rate and for nothing else.
    """
    turns = [turn for window in windows for turn in window.turns]
    background = [ask for window in windows for ask in window.background]
    answers = [turn.llm for turn in turns if turn.llm is not None]
    transcribed = with_transcript(windows, extra_turns)
    language = transcribed[0].language if transcribed else "en"  # all clips of a run are in one language
    failures = Counter([turn.error for turn in turns if turn.error] + [f"background_{ask.error}" for ask in background if ask.error])
    tokens = sum(answer.n_tokens for answer in (*answers, *background) if answer.error is None)
    seconds = sum(window.seconds for window in windows)
    samples = {metric.name: _of(sample_of(turn, metric) for turn in turns) for metric in of_turns()} | {
        ITL.name: _of(gap for answer in (*answers, *background) for gap in answer.itl_ms),
        BACKGROUND_LATENCY.name: _of(ask.latency_ms for ask in background),
        GENERATOR_LAG.name: _of(lag for window in windows for lag in window.lag_ms),
    }
    return TrafficSummary(
        distributions={metric.name: samples.get(metric.name) for metric in every() if metric.many},
        tokens_per_s=tokens / seconds if seconds and (answers or background) else None,
        wer=word_error_rate([turn.reference for turn in transcribed], [turn.stt.text for turn in transcribed if turn.stt is not None], language),
        wer_unit=error_unit(language) if transcribed else None,
        n_transcripts=len(transcribed),
        n_requests=len(turns) + len(background),
        n_failed=sum(failures.values()),
        failures=dict(failures),
        n_clips=len(clips := _by_clip(transcribed)),
        n_words=sum(heard[0][1] for heard in clips.values()),
    )


def _of(samples: Iterable[float | None]) -> Distribution | None:
    return Distribution.of([sample for sample in samples if sample is not None])


def interference(mixed: TrafficSummary, solo: dict[str, TrafficSummary]) -> dict[str, float | None]:
    """Return the cost of sharing: mixed p95 / solo p95 of each service's latency, None if one was not measured."""
    ratios: dict[str, float | None] = {}
    for mode, metric in {"stt": STT_LATENCY, "llm": LLM_LATENCY}.items():
        alone = solo[mode].of(metric) if mode in solo else None
        together = mixed.of(metric)
        ratios[mode] = round(together.p95 / alone.p95, 3) if alone and together and alone.p95 > 0 else None
    return ratios
