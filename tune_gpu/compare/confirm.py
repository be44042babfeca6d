"""Rules that decide which of a run's best is its winner, and whether that is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.artifacts.deployments import evidence_of, key_of
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import split_path
from tune_gpu.compare.metrics import ComparedMetric, standard_metrics
from tune_gpu.compare.rounds import findings_of
from tune_gpu.compare.samples import Replicate
from tune_gpu.compare.verdict import ComparisonVerdict, Finding
from tune_gpu.config.rules import OneOf, check_value
from tune_gpu.config.schema import ConfirmSettings
from tune_gpu.metrics import PAIR

WINNER, BASELINE, GIVEN_BASELINE = "winner", "baseline", "given baseline"
_OTHER_ARMS = {BASELINE: "the baseline", GIVEN_BASELINE: "the baseline given by --baseline"}


def check_metrics(settings: ConfirmSettings, latency_percentile: int, catalogue: Catalogue = PAIR, *, sessions: bool = False) -> None:
    """Raise UserError for the name of a metric that no comparison has; every other rule stands beside its setting."""
    measured = [metric.name for metric in standard_metrics(latency_percentile, catalogue=catalogue, sessions=sessions)]
    check_value(OneOf(tuple(measured)), "confirm.metric", settings.metric)
    names = [metric.name for metric in standard_metrics(latency_percentile, catalogue=catalogue, sessions=True)]  # as `confirm.tolerances` by default
    for name in settings.tolerances:
        if name not in names and name not in {split_path(known)[0] for known in names}:
            raise UserError(f"confirm.tolerances.{name}: no such metric. Use one of {', '.join(names)}, or a latency without its percentile.")


def contenders(
    best: Mapping[str, Any], baseline: Mapping[str, Any], lines: Sequence[EvaluationRecord], candidates: int
) -> dict[str, dict[str, Any]]:
    """Return the arms of a run's confirmation: `winner` (the search's best), the next best as `rival-<n>`, and `baseline`.

    Rivals are ranked by the evidence of all deployments, not by a single evaluation, which may have been lucky.

    Args:
        best: parameters of the search's best.
        baseline: parameters of what runs today.
        lines: of every evaluation.
        candidates: number of competing arms, with the winner; the baseline is additional.
    """
    arms: dict[str, dict[str, Any]] = {WINNER: dict(best)}
    measured = {key_of(line.params): line.params for line in lines if line.fitness is not None}
    for key in evidence_of(lines).ranked():
        if len(arms) < candidates and measured[key] not in arms.values() and measured[key] != dict(baseline):
            arms[f"rival-{len(arms)}"] = dict(measured[key])
    return arms | {BASELINE: dict(baseline)}


@dataclass(frozen=True)
class Standings:
    """The ranking of the contenders by the replicates."""

    leader: str
    """`winner`, unless a rival is shown to be better."""
    against_baseline: list[Finding]
    """The leader against the baseline, in every metric."""
    rivals: dict[str, Finding]
    """The winner against each rival, in the decisive metric."""
    decided: bool


def standings(
    replicates: Sequence[Replicate], arms: Sequence[str], metrics: Sequence[ComparedMetric], settings: ConfirmSettings, *, alpha: float, seed: int
) -> Standings:
    """Return who leads by these replicates, and whether it is decided."""
    decisive = [metric for metric in metrics if metric.name == settings.metric]

    def against(ours: str, theirs: str, which: Sequence[ComparedMetric]) -> list[Finding]:
        return findings_of(replicates, ours, theirs, which, alpha=alpha, tolerances=settings.tolerances, seed=seed)

    rivals = {arm: against(WINNER, arm, decisive)[0] for arm in arms if arm.startswith("rival-")}
    better = [arm for arm, finding in rivals.items() if finding.verdict is ComparisonVerdict.WORSE]
    leader = min(better, key=lambda arm: rivals[arm].gain or 0.0) if better else WINNER
    findings = against(leader, BASELINE, metrics)
    own = next(finding for finding in findings if finding.metric.name == settings.metric)
    return Standings(leader, findings, rivals, own.decided and all(finding.decided for finding in rivals.values()))


def _at_other_percentiles(findings: Sequence[Finding], finding: Finding) -> str:
    """Return the verdicts on the same latency at its other percentiles: a median can improve while the slowest answers get slower, or the reverse."""
    others = [other for other in findings if other.metric.entry is finding.metric.entry and other is not finding and other.effect is not None]
    return "".join(
        f", {other.verdict} at {other.metric.name.rpartition('.')[2]}{' ' if other.verdict is ComparisonVerdict.UNKNOWN else ': '}{other.text}" for other in others
    )


def speaks_for(theirs: str, own_baseline: Mapping[str, Any]) -> bool:
    """Return whether a comparison with this arm can confirm the run's winner: with the run's baseline, or with a given one if it has none."""
    return theirs == BASELINE or (theirs == GIVEN_BASELINE and not own_baseline)


def confirmed(findings: Sequence[Finding], metric: str, how_it_ended: str, theirs: str = BASELINE) -> tuple[bool, str]:
    """Return whether the winner is shown better than the baseline (or another arm), and why (not)."""
    other = _OTHER_ARMS.get(theirs, theirs)
    finding = next(finding for finding in findings if finding.metric.name == metric)
    if finding.effect is None:
        return False, f"{metric} was not measured in both ({how_it_ended})"
    basis = "" if finding.verdict is ComparisonVerdict.UNKNOWN else f" over {finding.n} at {100 * finding.effect.confidence:.4g} %"
    shown = f"{metric} {finding.text}{basis}{_at_other_percentiles(findings, finding)}"
    if finding.verdict is ComparisonVerdict.BETTER:
        return True, f"shown better than {other}: {shown}"
    if finding.verdict is ComparisonVerdict.WORSE:
        return False, f"shown worse than {other}: {shown}"
    if finding.verdict is ComparisonVerdict.UNKNOWN:
        return False, f"not known whether it is better than {other}: {shown}; {how_it_ended}"
    if finding.within_tolerance:
        return False, f"no better than {other}: {shown}, within the tolerance of {finding.tolerance:g}"
    return False, f"no difference from {other} is shown: {shown}; {how_it_ended}"
