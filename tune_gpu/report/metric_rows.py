"""The metrics of a winner beside those of the baseline, with what each number rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.artifacts.lines import line_of
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.metric import Better, Metric, carries, largest_carried, least_trials, statistic_text
from tune_gpu.common.wording import counted
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import ERROR_UNIT, N_CLIPS, N_TRANSCRIPTS, N_WORDS, WER, every


@dataclass(frozen=True)
class Row:
    """One metric of the winner beside the baseline's."""

    label: str
    winner: float | None
    baseline: float | None
    digits: int
    better: bool | None
    """Whether the winner's is the better number; None if unknown. Not a statement about significance."""
    zero: str = ""
    """Remark beside a 0."""
    at: str = ""
    """The statistic of a metric with many samples."""
    winner_n: int | None = None
    """Samples behind the winner's number, if it is a percentile."""
    baseline_n: int | None = None
    winner_instead: str = ""
    """The largest percentile that too few samples carry, if no other row has it; for an error rate, what it rests on."""
    baseline_instead: str = ""

    @property
    def winner_text(self) -> str:
        """Return the winner's number as people read it."""
        return self._text(self.winner, self.winner_n, self.winner_instead)

    @property
    def baseline_text(self) -> str:
        """Return the baseline's number as people read it."""
        return self._text(self.baseline, self.baseline_n, self.baseline_instead)

    @property
    def comparable(self) -> bool:
        """Return whether the samples of both carry the statistic."""
        return not self.at or all(n is None or carries(n, self.at) for n in (self.winner_n, self.baseline_n))

    def _text(self, value: float | None, n: int | None, instead: str) -> str:
        if value is None:
            return "–"
        return statistic_text(f"{value:.{self.digits}f}", n, self.at) + instead + (self.zero if value == 0 else "")

    @property
    def change_pct(self) -> float | None:
        """Return the winner's change against the baseline, in per cent; None if both are the same number to a reader."""
        if self.winner is None or not self.baseline or round(self.winner, self.digits) == round(self.baseline, self.digits) == 0.0:
            return None
        return 100.0 * (self.winner - self.baseline) / self.baseline


def rows_of(lines: Sequence[EvaluationRecord], best: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    """Return which evaluations the metrics come from: percentiles of several deployments cannot be pooled without their samples."""
    parts: list[str] = []
    for who, params in (("the winner's", best), ("the baseline's", base)):
        line = line_of(lines, params) if params and not (parts and params == best) else None
        if line is not None:
            count = sum(each.params == line.params and each.fitness is not None for each in lines)
            parts.append(f"{who} {'only evaluation' if count == 1 else f'last of {count} evaluations'} ({line.candidate_id})")
    return f"Measured in {' and '.join(parts)}." if parts else ""


def rows_in(lines: Sequence[EvaluationRecord], best: Mapping[str, Any], base: Mapping[str, Any] | None) -> list[Row]:
    """Return the metrics of the winner's last evaluation beside those of the baseline's."""
    ours, theirs = line_of(lines, best), line_of(lines, base) if base else None
    rows = []
    for metric, path, label, digits in _reported(unit_of(lines)):
        a = metric_at(ours.metrics, path) if ours else None
        b = metric_at(theirs.metrics, path) if theirs else None
        if a is None and b is None:
            continue
        better = None if a is None or b is None or a == b or metric.better is Better.NEITHER else (a > b) == (metric.better is Better.HIGHER)
        if not metric.many:
            ours_of, theirs_of = (_rests_on(line, metric) for line in (ours, theirs))
            rows.append(Row(label, a, b, digits, better, metric.zero, winner_instead=ours_of, baseline_instead=theirs_of))
            continue
        at = path.rpartition(".")[2]
        ours_n, theirs_n = (_n(line, metric) for line in (ours, theirs))
        rows.append(Row(label, a, b, digits, better, "", at, ours_n, theirs_n, _instead(ours, metric, at), _instead(theirs, metric, at)))
    return rows


def _rests_on(line: EvaluationRecord | None, metric: Metric) -> str:
    """Return what an error rate rests on, ` (21 words, 3 clips)`; empty for another metric. Older programs kept the number of transcripts only."""
    if line is None or not metric.counts_errors:
        return ""
    words, clips, transcripts = (metric_at(line.metrics, each.name) for each in (N_WORDS, N_CLIPS, N_TRANSCRIPTS))
    if words is not None and clips is not None:
        return f" ({counted(int(words), str(line.metrics.get(ERROR_UNIT) or 'word'))}, {counted(int(clips), 'clip')})"
    return "" if transcripts is None else f" ({counted(int(transcripts), 'transcript')})"


def few_words(line: EvaluationRecord | None) -> str | None:
    """Return a caution if an error rate rests on too few words to show a difference of its tolerance; None if not, or if they are not known."""
    words = metric_at(line.metrics, N_WORDS.name) if line else None
    tolerance = WER.compared.tolerance if WER.compared else 0.0
    least = least_trials(tolerance, 0.05)
    if line is None or words is None or words >= least:
        return None
    unit = str(line.metrics.get(ERROR_UNIT) or "word")
    return f"The winner's error rate rests on {counted(int(words), unit)}: {least} are needed to show that it differs by no more than {tolerance:g}, its tolerance."


def _n(line: EvaluationRecord | None, metric: Metric) -> int | None:
    """Return the number of samples behind a metric of an evaluation."""
    n = metric_at(line.metrics, metric.at("n")) if line else None
    return None if n is None else int(n)


def _instead(line: EvaluationRecord | None, metric: Metric, at: str) -> str:
    """Return the largest percentile that the samples carry, if they do not carry this one and the report shows no other."""
    n = _n(line, metric)
    other = None if n is None or carries(n, at) else largest_carried(n)
    value = metric_at(line.metrics, metric.at(other)) if line and other else None
    shown = metric.reported.at if metric.reported else ()
    return "" if value is None or metric.reported is None or other in shown else f"; {'median' if other == 'p50' else other} {value:.{metric.reported.digits}f}"


def _reported(error_unit: str) -> Iterator[tuple[Metric, str, str, int]]:
    """Yield each metric that the report shows, with its path, its label and its digits."""
    for metric in every():
        if metric.reported is None:
            continue
        if not metric.many:
            yield metric, metric.name, f"{error_unit} error rate" if metric.counts_errors else metric.heading, metric.reported.digits
            continue
        for statistic in metric.reported.at:
            words = (metric.label, "median" if statistic == "p50" else statistic, metric.unit)
            yield metric, metric.at(statistic), ", ".join(word for word in words if word), metric.reported.digits


def unit_of(lines: Sequence[EvaluationRecord]) -> str:
    """Return what recognition errors are counted in; lines from before that was recorded count words."""
    return "character" if any(line.metrics.get(ERROR_UNIT) == "character" for line in lines) else "word"
