"""The findings of a comparison, one per metric."""

from __future__ import annotations

from dataclasses import dataclass, field

from tune_gpu.artifacts.records.base import OPTIONAL, Record
from tune_gpu.common.metric import STATISTICS, Statistic, carries, least_trials, split_path
from tune_gpu.common.wording import counted
from tune_gpu.metrics import finding_entry


@dataclass(frozen=True, kw_only=True)
class EffectRecord(Record):
    """The difference of a metric between two arms, in the unit of the finding."""

    estimate: float
    low: float | None
    high: float | None
    """Ends of the interval; None if there are too few rounds for an interval, or too few turns for the percentile."""
    ours: float
    theirs: float
    n_rounds: int = 0
    n_pairs: int = 0
    confidence: float = 0.0
    n_words: int | None = field(default=None, metadata=OPTIONAL)
    n_clips: int | None = field(default=None, metadata=OPTIONAL)
    """Number of different words and clips that an error rate is based on; None for other metrics."""


@dataclass(frozen=True, kw_only=True)
class FindingRecord(Record):
    """The verdict on one metric."""

    metric: str
    verdict: str
    """`better`, `worse`, `no difference shown`, or `unknown` if nothing was measured or there is too little data."""
    unit: str
    higher_is_better: bool
    effect: EffectRecord | None
    """None if the metric was not measured in both arms."""
    tolerance: float
    within_tolerance: bool = False
    named: str | None = field(default=None, metadata=OPTIONAL)
    """The metric's label, in a space that names its services; None to use the catalogue's."""

    @property
    def label(self) -> str:
        """Return the metric's name for people: `voice turn at p95`."""
        metric, at = finding_entry(self.metric), split_path(self.metric)[1]
        return (self.named or (metric.label if metric else self.metric)) + (f" at {'the median' if at == 'p50' else at}" if at else "")

    @property
    def gain(self) -> float | None:
        """Return the estimate in the finding's unit, positive if our arm is better; None without a measurement."""
        return None if self.effect is None else self.effect.estimate if self.higher_is_better else -self.effect.estimate

    @property
    def claim(self) -> str:
        """Return the estimate as a clause about our arm: `its voice turn at p95 is 30 % better`, `it transcribes worse (…)`."""
        gain, metric = self.gain, finding_entry(self.metric)
        if gain is None:
            return f"its {self.label} was not measured"
        phrases = metric.compared.phrases if metric and metric.compared else None
        if phrases is not None and gain:
            amount = f"{abs(gain) * phrases.scale:.1f}"
            count = amount.removesuffix(".0")
            form = phrases.better if gain > 0 else phrases.worse
            whose = f" ({self.metric.partition('.')[0]})" if self.named and "." in self.metric else ""
            return "it " + form.format(amount=amount, count=count, s="" if count == "1" else "s", unit="character" if self.unit == "CER" else "word") + whose
        unit = " %" if self.unit == "%" else ""
        return f"its {self.label} is {abs(gain):.3g}{unit} {'better' if gain >= 0 else 'worse'}"

    @property
    def samples(self) -> str:
        """Return the sample sizes of the effect (`4 rounds, 24 turns`), with a note if they are too small for its percentile."""
        effect = self.effect
        if effect is None:
            return "–"
        metric, at = finding_entry(self.metric), split_path(self.metric)[1]
        by_round = metric is not None and metric.compared is not None and metric.compared.statistic is Statistic.MEAN_OF_ROUNDS
        parts = [counted(effect.n_rounds, "round")]
        if not by_round:
            parts.append(counted(effect.n_pairs, "turn") + (f": too few for {at}" if at and not carries(effect.n_pairs, at) else ""))
        if effect.n_words is not None:
            clips = "" if effect.n_clips is None else f" of {counted(effect.n_clips, 'clip')}"
            parts.append(counted(effect.n_words, "character" if self.unit == "CER" else "word") + clips)
        few = f": too few for a tolerance of {self.tolerance:g}, which takes {self._least_trials}" if self.is_unknown and not at else ""
        return ", ".join(parts) + few

    @property
    def _least_trials(self) -> int:
        """Return how many turns or words are needed to show that failures or errors are no more frequent than the tolerance."""
        share = self.tolerance / 100.0 if self.unit.startswith("%") else self.tolerance
        return least_trials(share, 1.0 - self.effect.confidence) if self.effect else 0

    @property
    def is_unknown(self) -> bool:
        """Return whether nothing was measured, or too few turns or words for a verdict."""
        return self.verdict == "unknown"

    @property
    def carried(self) -> bool:
        """Return whether there are enough turns for the metric's percentile, if it has one."""
        at = self.metric.rpartition(".")[2]
        return self.effect is None or at not in STATISTICS or carries(self.effect.n_pairs, at)

    @property
    def text(self) -> str:
        """Return the complete finding: `voice turn at the median from 1818 to 800 ms, -56 % (-64.5 to -45.4; 3 rounds, 7 turns)`."""
        effect = self.effect
        if effect is None or not self.carried:
            return f"{self.label} {self.figures}"
        metric = finding_entry(self.metric)
        unit = f" {metric.unit}" if metric and metric.unit else ""
        return f"{self.label} from {_number(effect.theirs)} to {_number(effect.ours)}{unit}, {self.figures}"

    @property
    def figures(self) -> str:
        """Return the effect with its interval and sample sizes: `-38.1 % (-44 to -31; 8 rounds, 48 turns)`. With too few turns, return only
        the sample sizes."""
        effect = self.effect
        if effect is None:
            return "was not measured"
        if not self.carried:
            return f"({self.samples})"
        unit = f" {self.unit}" if self.unit not in ("fitness",) else ""
        interval = "" if effect.low is None or effect.high is None or self.is_unknown else f"{effect.low:+.3g} to {effect.high:+.3g}; "
        return f"{effect.estimate:+.3g}{unit} ({interval}{self.samples})"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100.0 else f"{value:.3g}"
