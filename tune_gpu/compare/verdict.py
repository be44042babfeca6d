"""Turn effects into verdicts, and verdicts into a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from tune_gpu.artifacts.records.findings import EffectRecord, FindingRecord
from tune_gpu.common.metric import Statistic, least_samples, least_trials
from tune_gpu.common.wording import counted
from tune_gpu.compare.bootstrap import Effect
from tune_gpu.compare.metrics import ComparedMetric
from tune_gpu.metrics import VOICE_TURN


class ComparisonVerdict(StrEnum):
    """What is shown about a metric."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference shown"
    UNKNOWN = "unknown"
    """It was not measured in both, or there are too few turns or words for a verdict."""


@dataclass(frozen=True)
class Finding:
    """A metric's verdict."""

    metric: ComparedMetric
    effect: Effect | None
    """None if it was not measured in both arms."""
    tolerance: float
    """A difference up to this does not matter (per cent for a relative metric, else its unit)."""

    @property
    def verdict(self) -> ComparisonVerdict:
        """Return better or worse only if the whole interval supports it."""
        if self.effect is None or self.too_few is not None:
            return ComparisonVerdict.UNKNOWN
        return self._shown

    @property
    def _shown(self) -> ComparisonVerdict:
        gain = self.gain_interval
        if gain is None or gain[0] <= 0.0 <= gain[1]:
            return ComparisonVerdict.NO_DIFFERENCE
        return ComparisonVerdict.BETTER if gain[0] > 0.0 else ComparisonVerdict.WORSE

    @property
    def too_few(self) -> str | None:
        """Return why there is too little for a verdict, or None: too few turns for the percentile, or no difference in too few words or turns.

        Words are too few if an error rate that is worse by the whole tolerance would probably show no error in them, and turns if a share of
        failures that is higher by it would probably show no failure: see `least_trials`.
        """
        effect = self.effect
        if effect is None:
            return None
        if self._few_turns(effect):
            return f"{counted(effect.n_pairs, 'turn')}: too few for {self.metric.name.rpartition('.')[2]}, which takes {least_samples(self.metric.percentile or 0)}"
        if self._shown is not ComparisonVerdict.NO_DIFFERENCE:
            return None
        alpha = 1.0 - effect.confidence
        if effect.n_words is not None and effect.n_words < (least := least_trials(self.tolerance, alpha)):
            return f"{self._words_and_clips(effect)}: too few for a tolerance of {self.tolerance:g}, which takes {least}"
        if self._is_share and effect.n_pairs < (least := least_trials(self.tolerance / 100.0, alpha)):
            return f"{counted(effect.n_pairs, 'turn')}: too few for a tolerance of {self.tolerance:g} {self.metric.unit}, which takes {least}"
        return None

    @property
    def carried(self) -> bool:
        """Return True unless it is a percentile that its turns do not carry."""
        return self.effect is None or not self._few_turns(self.effect)

    @property
    def _is_share(self) -> bool:
        return self.metric.compared.statistic is Statistic.SHARE_OF_TURNS

    def _few_turns(self, effect: Effect) -> bool:
        return self.metric.percentile is not None and effect.n_pairs < least_samples(self.metric.percentile)

    def _words_and_clips(self, effect: Effect) -> str:
        clips = "" if effect.n_clips is None else f" of {counted(effect.n_clips, 'clip')}"
        return f"{counted(effect.n_words or 0, self.metric.counted_in)}{clips}"

    @property
    def n(self) -> str:
        """Return what the effect rests on: `4 rounds, 24 turns`."""
        effect = self.effect
        if effect is None:
            return "-"
        parts = [counted(effect.n_rounds, "round")]
        if self.metric.compared.statistic is not Statistic.MEAN_OF_ROUNDS:
            parts.append(counted(effect.n_pairs, "turn"))
        return ", ".join(parts + ([self._words_and_clips(effect)] if effect.n_words is not None else []))

    @property
    def gain_interval(self) -> tuple[float, float] | None:
        """Return the interval, positive where our arm is better, or None."""
        effect = self.effect
        if effect is None or effect.low is None or effect.high is None or self._few_turns(effect):
            return None
        return (effect.low, effect.high) if self.metric.higher_is_better else (-effect.high, -effect.low)

    @property
    def gain(self) -> float | None:
        """Return the estimate, positive where our arm is better, or None."""
        if self.effect is None:
            return None
        return self.effect.estimate if self.metric.higher_is_better else -self.effect.estimate

    @property
    def within_tolerance(self) -> bool:
        """Return True if the whole interval lies within the tolerance: the difference is shown not to matter."""
        gain = self.gain_interval
        return gain is not None and self.too_few is None and -self.tolerance <= gain[0] and gain[1] <= self.tolerance

    @property
    def not_worse(self) -> bool:
        """Return True if the metric is shown to be no worse than the tolerance allows."""
        gain = self.gain_interval
        return gain is not None and self.too_few is None and gain[0] >= -self.tolerance

    @property
    def decided(self) -> bool:
        """Return True if more rounds would change nothing that matters. A metric that cannot be measured counts as decided. So does one
        whose clips have too few words, because more rounds repeat the clips, and a share of failures that is the same so far: to rule out rare
        failures takes hundreds of turns."""
        if self.effect is None or self.within_tolerance:
            return True
        if self._is_share and self.verdict is ComparisonVerdict.UNKNOWN:
            return abs(self.effect.estimate) <= self.tolerance
        return self.verdict is not ComparisonVerdict.NO_DIFFERENCE and not self._few_turns(self.effect)

    def record(self) -> FindingRecord:
        """Return the finding as artifacts hold it."""
        effect = None if self.effect is None else self._effect_record(self.effect)
        return FindingRecord(
            metric=self.metric.name,
            verdict=str(self.verdict),
            unit=self.metric.unit,
            higher_is_better=self.metric.higher_is_better,
            effect=effect,
            tolerance=self.tolerance,
            within_tolerance=self.within_tolerance,
        )

    def _effect_record(self, effect: Effect) -> EffectRecord:
        values = {key: round(value, 5) if isinstance(value, float) else value for key, value in asdict(effect).items()}
        if self._few_turns(effect):
            values |= {"low": None, "high": None}
        return EffectRecord.parse({key: value for key, value in values.items() if value is not None or key in ("low", "high")}, "effect")

    @property
    def text(self) -> str:
        """Return the effect in figures: `-38 % (-44 … -31)`, or `(12 turns: too few for p95, which takes 20)`."""
        if self.effect is None:
            return "not measured in both"
        if self._few_turns(self.effect):
            return f"({self.too_few})"
        digits = self.metric.compared.digits
        interval = "" if self.effect.low is None else f" ({self.effect.low:+.{digits}f} … {self.effect.high:+.{digits}f})"
        if self.too_few is not None:
            interval = f" ({self.too_few})"
        return f"{self.effect.estimate:+.{digits}f} {self.metric.unit}{interval}"


def tolerance_of(metric: ComparedMetric, tolerances: Mapping[str, float]) -> float:
    """Return the tolerance by the metric's full name, else by its first part (`voice_turn_ms`), else 0."""
    return float(tolerances.get(metric.name, tolerances.get(metric.name.partition(".")[0], 0.0)))


def sentence(findings: Sequence[Finding], ours: str = "winner") -> str:
    """Return one line: the answer's latency at each percentile, the transcripts, the callers, and failures if they differ."""
    turns = [finding for finding in findings if finding.metric.entry is VOICE_TURN]
    known = [finding for finding in turns if finding.gain_interval is not None] or turns[:1]
    rest = sorted(findings, key=_only_of_a_difference)
    parts = [" and ".join(map(_speed, known)), *map(_phrase, rest)]
    return f"{ours} " + ", ".join(part for part in parts if part)


def _only_of_a_difference(finding: Finding) -> bool:
    """Return True for a metric that the sentence names only where it differs: such remarks come last."""
    phrases = finding.metric.compared.phrases
    return phrases is not None and not phrases.same


def _speed(finding: Finding) -> str:
    at, gain = finding.metric.name.rpartition(".")[2], finding.gain_interval
    if finding.effect is None:
        return "was never measured beside it"
    if gain is None:
        return f"is not distinguishable in speed by {counted(finding.effect.n_rounds, 'round')}"
    interval = f"({_signed(min(map(abs, gain)))} … {_signed(max(map(abs, gain)))})"
    if finding.verdict is ComparisonVerdict.BETTER:
        return f"answers {_signed(finding.gain or 0.0)} % sooner at {at} {interval}"
    if finding.verdict is ComparisonVerdict.WORSE:
        return f"answers {_signed(-(finding.gain or 0.0))} % later at {at} {interval}"
    spread = f"({-gain[1]:+.0f} … {-gain[0]:+.0f} %)"
    return f"answers as soon at {at} {spread}" if finding.within_tolerance else f"shows no difference in speed at {at} {spread}"


def _phrase(finding: Finding) -> str | None:
    """Return the sentence's part about a metric, or None for a metric without phrases or a measurement."""
    phrases = finding.metric.compared.phrases
    if phrases is None or finding.gain is None:
        return None
    if finding.verdict is ComparisonVerdict.NO_DIFFERENCE:
        same = finding.not_worse if phrases.not_worse_is_same else finding.within_tolerance
        return (phrases.same if same else phrases.undecided) or None
    if finding.verdict is ComparisonVerdict.UNKNOWN:
        return f"{phrases.undecided} ({finding.too_few})" if phrases.undecided else None
    amount = f"{abs(finding.gain) * phrases.scale:.1f}"
    count = amount.removesuffix(".0")
    form = phrases.better if finding.verdict is ComparisonVerdict.BETTER else phrases.worse
    return form.format(amount=amount, count=count, s="" if count == "1" else "s", unit=finding.metric.counted_in)


def _signed(value: float) -> str:
    return f"{value:.0f}"
