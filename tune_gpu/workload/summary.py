"""Summarise the results of windows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.metric import Metric, Protocol
from tune_gpu.config.languages import error_unit
from tune_gpu.metrics import (
    BACKGROUND_LATENCY,
    ENDED_EARLY_PCT,
    ERROR_UNIT,
    GENERATOR_LAG,
    ITL,
    LONGEST_CONTEXT,
    N_CLIPS,
    N_FAILED,
    N_REQUESTS,
    N_TRANSCRIPTS,
    N_WORDS,
    PAIR,
    TOKENS_PER_S,
    WER,
)
from tune_gpu.workload.clients.call import Sample
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.flow import Flow, flow_of
from tune_gpu.workload.percentiles import Distribution
from tune_gpu.workload.turn import Turn, sample_of
from tune_gpu.workload.wer import word_error_rate, word_errors
from tune_gpu.workload.window import BackgroundSample, WindowResult

_NOISE = re.compile(r"@[-+.e\d]+dB$")
"""End of a clip's name that says how much noise was added to it."""


@dataclass(frozen=True)
class Recognition:
    """What the transcripts of one service are worth."""

    rate: float | None = None
    """Errors over words; None without a transcript."""
    unit: str | None = None
    """`word`, or `character` in languages whose writing does not separate words: the rate is then a character error rate."""
    n_transcripts: int = 0
    n_clips: int = 0
    """Different clips: a clip that is heard again says little that is new."""
    n_words: int = 0
    """Words (or characters) of those clips."""


@dataclass(frozen=True)
class TrafficSummary:
    """Latencies, throughput and quality of one or more windows. None is a value that was not measured."""

    catalogue: Catalogue
    distributions: Mapping[str, Distribution | None]
    """Name -> samples, of each metric of the catalogue that has many."""
    tokens_per_s: Mapping[str, float | None]
    """Of each LLM, by the name of the service."""
    recognition: Mapping[str, Recognition]
    """Of each service that transcribes, by its name."""
    longest_context: Mapping[str, int | None]
    """Most tokens of a prompt together with its answer, of each LLM; None if the server counts no prompts."""
    flow: Flow
    n_requests: int
    n_failed: int
    failures: dict[str, int]
    ended_early_pct: Mapping[str, float]
    """Share of the answers that the model ended before the length asked for, of each LLM that had any, by the name of the service."""

    def of(self, metric: Metric) -> Distribution | None:
        """Return the samples of a metric of the catalogue."""
        return self.distributions.get(metric.name)

    @property
    def failed_pct(self) -> float:
        """Return the share of requests that failed, in per cent."""
        return 100.0 * self.n_failed / self.n_requests if self.n_requests else 0.0

    def as_metrics(self) -> dict[str, Any]:
        """Return the metrics under their names in the artifacts."""
        found: dict[str, Any] = {name: None if value is None else value.as_dict() for name, value in self.distributions.items()}
        for service, tokens in self.tokens_per_s.items():
            found[self.catalogue.name(TOKENS_PER_S, service)] = None if tokens is None else round(tokens, 2)
        for service, share in self.ended_early_pct.items():
            found[self.catalogue.key(ENDED_EARLY_PCT, service)] = round(share, 1)
        for service, heard in self.recognition.items():
            found[self.catalogue.name(WER, service)] = None if heard.rate is None else round(heard.rate, 4)
            found[self.catalogue.key(ERROR_UNIT, service)] = heard.unit
            found[self.catalogue.name(N_TRANSCRIPTS, service)] = heard.n_transcripts
            found[self.catalogue.name(N_CLIPS, service)] = heard.n_clips
            found[self.catalogue.name(N_WORDS, service)] = heard.n_words
        for service, longest in self.longest_context.items():
            found[self.catalogue.name(LONGEST_CONTEXT, service)] = longest
        return found | self.flow.as_metrics() | {N_REQUESTS.name: self.n_requests, N_FAILED.name: self.n_failed, "failed_requests": self.failures}


def with_transcript(windows: Sequence[WindowResult], extra_turns: Sequence[Turn] = ()) -> list[Turn]:
    """Return the turns whose input was transcribed. The transcript may be empty."""
    turns = (*extra_turns, *(turn for window in windows for turn in window.turns))
    return [turn for turn in turns if turn.transcript is not None]


def rates_without_clips(windows: Sequence[WindowResult], extra_turns: Sequence[Turn] = (), label: str | None = None) -> dict[str, float]:
    """Return for each clip the word error rate without it; noise added to a clip makes no other clip of it. Empty for a single clip.

    Args:
        windows: the measured windows.
        extra_turns: turns outside of any window.
        label: the service whose transcripts count; None for all.
    """
    counted = _by_clip(turn for turn in with_transcript(windows, extra_turns) if label in (None, next(iter(turn.samples))))
    totals = {clip: (sum(errors for errors, _ in of), sum(words for _, words in of)) for clip, of in counted.items()}
    all_errors, all_words = (sum(total[at] for total in totals.values()) for at in (0, 1))
    return {clip: (all_errors - errors) / (all_words - words) for clip, (errors, words) in totals.items()} if len(totals) > 1 else {}


def _by_clip(turns: Iterable[Turn]) -> dict[str, list[tuple[int, int]]]:
    """Return the errors and words of each transcript by its clip, whatever noise was added to that."""
    counted: dict[str, list[tuple[int, int]]] = {}
    for turn in turns:
        if turn.transcript is not None:
            counted.setdefault(_NOISE.sub("", turn.name), []).append(word_errors(turn.reference, turn.transcript, turn.language))
    return counted


def summarise(windows: Sequence[WindowResult], catalogue: Catalogue = PAIR, *, extra_turns: Sequence[Turn] = ()) -> TrafficSummary:
    """Pool the raw samples of the windows, and take percentiles of the samples.

    Args:
        windows: the measured windows.
        catalogue: the metrics of the space.
        extra_turns: turns outside of any window, whose transcripts count for the word error rate and for nothing else.
    """
    turns = [turn for window in windows for turn in window.turns]
    background = [ask for window in windows for ask in window.background]
    transcribed = with_transcript(windows, extra_turns)
    failures = Counter([turn.error for turn in turns if turn.error] + [_failure_of(ask) for ask in background if ask.error])
    seconds = sum(window.seconds for window in windows)
    samples = {metric.name: _of(sample_of(turn, metric) for turn in turns) for metric in catalogue.of_turns()}
    samples[catalogue.name(GENERATOR_LAG)] = _of(lag for window in windows for lag in window.lag_ms)
    tokens_per_s: dict[str, float | None] = {}
    ended_early: dict[str, float] = {}
    for service in _services(catalogue, ITL):
        label = catalogue.label(service)
        asks = [ask.sample for ask in background if ask.stage.service == service]
        answers = [answer for answer in (*_samples(turns, label), *asks) if isinstance(answer, GenerationSample)]
        samples[catalogue.name(ITL, service)] = _of(gap for answer in answers for gap in answer.itl_ms)
        whole = [answer for answer in answers if answer.error is None]
        tokens_per_s[service] = sum(answer.n_tokens for answer in whole) / seconds if seconds and answers else None
        if early := sum(answer.ended_early for answer in whole):
            ended_early[service] = 100.0 * early / len(whole)
    for service in _services(catalogue, BACKGROUND_LATENCY):
        samples[catalogue.name(BACKGROUND_LATENCY, service)] = _of(ask.sample.latency_ms for ask in background if ask.stage.service == service)
    return TrafficSummary(
        catalogue,
        {metric.name: samples.get(metric.name) for metric in catalogue.every() if metric.many},
        tokens_per_s,
        {
            service: _recognition([turn for turn in transcribed if next(iter(turn.samples)) == catalogue.label(service)])
            for service in catalogue.services(Protocol.TRANSCRIPTION)
        },
        {service: _longest_context(turns, background, catalogue.label(service)) for service in _services(catalogue, LONGEST_CONTEXT)},
        flow_of(windows),
        n_requests=len(turns) + len(background),
        n_failed=sum(failures.values()),
        failures=dict(failures),
        ended_early_pct=ended_early,
    )


def _services(catalogue: Catalogue, entry: Metric) -> list[str]:
    """Return the services that have the metric of this entry."""
    return [service for service, protocol in catalogue.protocols.items() if protocol in entry.protocols]


def _samples(turns: Iterable[Turn], label: str) -> list[Sample]:
    return [sample for turn in turns for of, sample in turn.requests if of == label]


def _longest_context(turns: Sequence[Turn], background: Sequence[BackgroundSample], label: str) -> int | None:
    asked = [sample for turn in turns for of, sample in turn.requests if of == label] + [ask.sample for ask in background if ask.stage.label == label]
    answers = [sample for sample in asked if isinstance(sample, GenerationSample)]
    return max((answer.prompt_tokens + answer.n_tokens for answer in answers if answer.prompt_tokens is not None), default=None)


def _failure_of(ask: BackgroundSample) -> str:
    """Return the name of a failure. The default pair's LLM, whose label is not its name, has none in it."""
    of_pairs_llm = ask.stage.generates and ask.stage.label != ask.stage.service
    return f"background_{ask.error}" if of_pairs_llm else f"background_{ask.stage.label}_{ask.error}"


def _recognition(turns: Sequence[Turn]) -> Recognition:
    """Return the errors of transcripts."""
    if not turns:
        return Recognition()
    language = turns[0].language  # all clips of a run are in one language
    clips = _by_clip(turns)
    return Recognition(
        rate=word_error_rate([turn.reference for turn in turns], [turn.transcript or "" for turn in turns], language),
        unit=error_unit(language),
        n_transcripts=len(turns),
        n_clips=len(clips),
        n_words=sum(heard[0][1] for heard in clips.values()),
    )


def _of(samples: Iterable[float | None]) -> Distribution | None:
    return Distribution.of([sample for sample in samples if sample is not None])


def interference(mixed: TrafficSummary, solo: Mapping[str, TrafficSummary]) -> dict[str, float | None]:
    """Return the cost of sharing by the labels of the services: mixed p95 / solo p95 of each one's latency, None if one was not measured.

    Args:
        mixed: all services driven.
        solo: label -> that service driven alone.
    """
    ratios: dict[str, float | None] = {}
    for metric in mixed.catalogue.of_turns():
        label, _, attribute = metric.of_turn.rpartition(".")
        if label and attribute == "latency_ms":
            together, alone = mixed.of(metric), solo[label].of(metric) if label in solo else None
            ratios[label] = round(together.p95 / alone.p95, 3) if alone and together and alone.p95 > 0 else None
    return ratios
