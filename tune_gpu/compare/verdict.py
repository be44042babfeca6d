"""Turn effects into verdicts, and into a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from tune_gpu.artifacts.records.findings import EffectRecord, FindingRecord
from tune_gpu.common.wording import counted
from tune_gpu.compare.bootstrap import Effect
from tune_gpu.compare.metrics import Metric
from tune_gpu.metrics import VOICE_TURN


class ComparisonVerdict(StrEnum):
    """What is shown about a metric."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class Finding:
    """A metric's verdict."""

    metric: Metric
    effect: Effect | None
    """Null where it was not measured in both."""
    tolerance: float
    """A difference up to this does not matter (per cent for a relative metric, else its unit)."""

    @property
    def verdict(self) -> ComparisonVerdict:
        """Return better or worse only if the whole interval supports it."""
        gain = self.gain_interval
        if gain is None or gain[0] <= 0.0 <= gain[1]:
            return ComparisonVerdict.NO_DIFFERENCE
        return ComparisonVerdict.BETTER if gain[0] > 0.0 else ComparisonVerdict.WORSE

    @property
    def gain_interval(self) -> tuple[float, float] | None:
        """Return the interval, positive where our arm is better, or None."""
        effect = self.effect
        if effect is None or effect.low is None or effect.high is None:
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
        return gain is not None and -self.tolerance <= gain[0] and gain[1] <= self.tolerance

    @property
    def not_worse(self) -> bool:
        """Return True if the metric is shown to be no worse than the tolerance allows."""
        gain = self.gain_interval
        return gain is not None and gain[0] >= -self.tolerance

    @property
    def decided(self) -> bool:
        """Return True if more rounds would change nothing that matters. A metric that cannot be measured counts as decided."""
        return self.effect is None or self.verdict is not ComparisonVerdict.NO_DIFFERENCE or self.within_tolerance

    def record(self) -> FindingRecord:
        """Return the finding as artifacts hold it."""
        effect = None if self.effect is None else EffectRecord.parse({k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(self.effect).items()}, "effect")
        return FindingRecord(
            metric=self.metric.name,
            verdict=str(self.verdict),
            unit=self.metric.unit,
            higher_is_better=self.metric.higher_is_better,
            effect=effect,
            tolerance=self.tolerance,
            within_tolerance=self.within_tolerance,
        )

    @property
    def text(self) -> str:
        """Return the effect in figures: `-38 % (-44 … -31)`."""
        if self.effect is None:
            return "not measured in both"
        digits = self.metric.compared.digits
        interval = "" if self.effect.low is None else f" ({self.effect.low:+.{digits}f} … {self.effect.high:+.{digits}f})"
        return f"{self.effect.estimate:+.{digits}f} {self.metric.unit}{interval}"


def tolerance_of(metric: Metric, tolerances: Mapping[str, float]) -> float:
    """Return the tolerance by the metric's full name, else by its first part (`voice_turn_ms`), else 0."""
    return float(tolerances.get(metric.name, tolerances.get(metric.name.partition(".")[0], 0.0)))


def sentence(findings: Sequence[Finding], ours: str = "winner") -> str:
    """Return one line: the answer's latency, the transcripts, the callers, and failures if they differ."""
    turn = next(finding for finding in findings if finding.metric.entry is VOICE_TURN)
    rest = sorted(findings, key=_only_of_a_difference)
    parts = [_speed(turn), *map(_phrase, rest)]
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
    """Return what the sentence says of a metric, or None for a metric without phrases or a measurement."""
    phrases = finding.metric.compared.phrases
    if phrases is None or finding.gain is None:
        return None
    if finding.verdict is ComparisonVerdict.NO_DIFFERENCE:
        same = finding.not_worse if phrases.not_worse_is_same else finding.within_tolerance
        return (phrases.same if same else phrases.undecided) or None
    amount = f"{abs(finding.gain) * phrases.scale:.1f}"
    count = amount.removesuffix(".0")
    form = phrases.better if finding.verdict is ComparisonVerdict.BETTER else phrases.worse
    return form.format(amount=amount, count=count, s="" if count == "1" else "s", unit=finding.metric.counted_in)


def _signed(value: float) -> str:
    return f"{value:.0f}"
