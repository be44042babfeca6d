"""Decide what to do about a run's winner: deploy it, keep the current configuration, or measure longer. Pure: the evidence is passed in as
records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tune_gpu.artifacts.lines import line_of
from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.artifacts.records.decision import Decision, DecisionVerdict
from tune_gpu.artifacts.records.ends import ComparisonEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.findings import EffectRecord, FindingRecord
from tune_gpu.common.metric import least_samples, split_path
from tune_gpu.common.wording import counted
from tune_gpu.compare.forecast import MARGIN, budget_for
from tune_gpu.compare.verdict import ComparisonVerdict
from tune_gpu.config.schema import ConfirmSettings, ExperimentConfig, PromoteSettings
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.evaluation.targets import MissedTarget, missed_targets
from tune_gpu.promote.gate import gain, no_worse

SEARCH_ALONE = "the search alone"


@dataclass(frozen=True)
class Case:
    """The evidence for a decision.

    Args:
        run_id: the run's id.
        place: the argument that commands need to find the run, ` run.artifacts_dir=…`; "" for the default folder.
        winner: parameters of the winner; None if nothing was feasible.
        baseline: parameters of the current configuration; empty if they are unknown.
        why_not_compared: why there is no winner or no comparison; "" if there is one.
        comparison: the winner against the current configuration.
        rests_on: the file of the comparison.
        deployment_s: duration of a typical deployment of the run in seconds, from start to stop; None if nothing was measured.
        missed: targets that the winner misses by far, or that only the winner misses.
        needed_s: duration of a confirmation in seconds by the run's own forecast; None without a forecast.
    """

    run_id: str
    place: str
    winner: Mapping[str, Any] | None
    baseline: Mapping[str, Any]
    why_not_compared: str = ""
    comparison: Comparison | None = None
    rests_on: str = SEARCH_ALONE
    deployment_s: float | None = None
    missed: tuple[MissedTarget, ...] = ()
    needed_s: float | None = None


def decide(case: Case, confirm: ConfirmSettings, promote: PromoteSettings) -> Decision:
    """Return what to do, why, and how long more evidence would take. A target that the winner misses comes first.

    Return *deploy* only if `promote` accepts the evidence under the same settings.
    """
    found = _decided(case, confirm, promote)
    if not case.missed or dict(case.winner or {}) == dict(case.baseline):
        return found
    return replace(found, reason=f"by the weights of the objective the winner is the best, but {' and '.join(each.text for each in case.missed)}. {_sentence(found.reason)}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _decided(case: Case, confirm: ConfirmSettings, promote: PromoteSettings) -> Decision:
    if case.winner is None:
        reason = case.why_not_compared or "no feasible configuration was found."
        return Decision(verdict=DecisionVerdict.KEEP, reason=reason, rests_on=case.rests_on)
    if case.baseline and dict(case.winner) == dict(case.baseline):
        return Decision(verdict=DecisionVerdict.KEEP, reason="it is the best configuration that was found.", rests_on=case.rests_on)
    if not case.baseline:
        command = f"tune-gpu compare {case.run_id}{case.place} --baseline KEY=VALUE,…"
        reason = "the run has no baseline, so it is not known whether its winner is better than the current configuration."
        return Decision(verdict=DecisionVerdict.MEASURE_LONGER, reason=reason, command=command, rests_on=case.rests_on)
    comparison = case.comparison
    if comparison is None or comparison.ended == ComparisonEnd.FAILED or not comparison.n_rounds:
        why = case.why_not_compared or (comparison.ended_why if comparison else "") or "it was not compared"
        return _longer(case, confirm, f"the winner is not confirmed: {why.removesuffix('.')}.", confirm.min_rounds)
    return _compared(case, comparison, confirm, promote)


def typical_deployment_s(lines: Iterable[EvaluationRecord]) -> float | None:
    """Return the median duration of a run's measured evaluations in seconds, or None if there are none."""
    measured = [line.wall_s for line in lines if line.n_windows and line.wall_s]
    return statistics.median(measured) if measured else None


def targets_missed(lines: Sequence[EvaluationRecord], winner: Mapping[str, Any] | None, baseline: Mapping[str, Any], config: ExperimentConfig) -> tuple[MissedTarget, ...]:
    """Return the targets that the winner misses, by the last evaluation of the winner and of the baseline."""
    ours, theirs = line_of(lines, winner or {}), line_of(lines, baseline)
    return missed_targets(ours.metrics, theirs.metrics if theirs else None, asdict(config.objective), catalogue_for(config)) if ours else ()


def _compared(case: Case, comparison: Comparison, confirm: ConfirmSettings, promote: PromoteSettings) -> Decision:
    decisive, wanted = comparison.finding(confirm.metric), comparison.finding(promote.metric)
    prices = [finding for finding in comparison.findings if _shown_beyond_tolerance(finding)]
    if comparison.confirmed and gain(comparison, promote).holds and no_worse(comparison).holds:
        gained = wanted.claim if wanted else "it is better"
        reason = f"{gained} than the current one, and no metric is worse beyond its tolerance."
        return _sorted(case, comparison, DecisionVerdict.DEPLOY, reason, f"tune-gpu promote {case.run_id}{case.place}")
    if decisive is not None and decisive.verdict == ComparisonVerdict.WORSE:
        return _sorted(case, comparison, DecisionVerdict.KEEP, f"the winner is shown to be worse than the current configuration: {decisive.claim}.")
    if decisive is not None and decisive.within_tolerance:
        reason = f"no difference that matters: {decisive.label} {decisive.figures}, within the tolerance of {decisive.tolerance:g}."
        return _sorted(case, comparison, DecisionVerdict.KEEP, reason)
    if prices:
        price, accepted = " and ".join(each.claim for each in prices), " ".join(map(_accepted, prices))
        reason = f"{price}, beyond the tolerance. To accept that price, compare again with {accepted}."
        return _sorted(case, comparison, DecisionVerdict.KEEP, reason)
    if wanted is not None and _below(wanted, promote.min_gain_pct):
        reason = f"the gain is smaller than promote.min_gain_pct={promote.min_gain_pct:g}: {wanted.label} {wanted.figures}."
        return _sorted(case, comparison, DecisionVerdict.KEEP, reason)
    return _open(case, comparison, confirm, [finding for finding in (decisive, wanted) if finding is not None])


def _open(case: Case, comparison: Comparison, confirm: ConfirmSettings, needed: list[FindingRecord]) -> Decision:
    """Return *measure longer*, with the open metrics and the number of rounds that would settle them."""
    losses = [finding for finding in comparison.findings if finding.verdict != ComparisonVerdict.WORSE and _loss(finding) > finding.tolerance]
    open_ones = _once([finding for finding in needed if finding.verdict != ComparisonVerdict.BETTER] + losses)
    rounds = max((rounds_needed(finding, confirm) for finding in open_ones), default=confirm.max_rounds)
    one, still = comparison.n_rounds == 1, "; ".join(f"{finding.label} {finding.figures}" for finding in open_ones)
    decisive = needed[0] if needed and needed[0].verdict == ComparisonVerdict.BETTER else None
    if decisive is not None:
        found = f"{'shows' if one else 'show'} that {decisive.claim}, and {'leaves' if one else 'leave'} open{still and ':'} {still or 'whether it is better by enough'}"
    else:
        found = f"{'leaves' if one else 'leave'} open whether the winner is better{still and f': {still}'}"
    longer = _longer(case, confirm, f"{counted(comparison.n_rounds, 'round')} {found}.", rounds)
    return _sorted(case, comparison, longer.verdict, longer.reason, longer.command, longer.about_s)


def rounds_needed(finding: FindingRecord, confirm: ConfirmSettings) -> int:
    """Estimate how many rounds settle a finding: the width of an interval falls with the square root of their number.

    The distance to resolve is the larger of two: from no difference to the estimate, and from the estimate to the tolerance.
    A percentile needs at least the rounds that have enough turns. The result is at least one round more than were measured, and at most
    `confirm.max_rounds` or four times as many as were measured.
    """
    effect, at = finding.effect, split_path(finding.metric)[1].removeprefix("p")
    if effect is not None and at.isdigit() and 0 < effect.n_pairs < (least := least_samples(int(at))):
        return max(confirm.min_rounds, math.ceil(effect.n_rounds * least / effect.n_pairs))
    if effect is None or effect.low is None or effect.high is None or effect.n_rounds < 2:
        return confirm.min_rounds
    half, size = (effect.high - effect.low) / 2.0, abs(effect.estimate)
    distance, most = max(size, finding.tolerance - size), max(confirm.max_rounds, 4 * effect.n_rounds)
    wanted = effect.n_rounds * (half / distance) ** 2 if distance > 0.0 else math.inf
    return max(confirm.min_rounds, effect.n_rounds + 1, math.ceil(min(wanted, most)))


def _longer(case: Case, confirm: ConfirmSettings, reason: str, rounds: int) -> Decision:
    round_s = _round_s(case)
    predicted_s = None if round_s is None else rounds * round_s
    about_s = case.needed_s or predicted_s
    needed_s = case.needed_s or (None if predicted_s is None else MARGIN * predicted_s)  # the run's own forecast includes the margin
    budget = "" if needed_s is None else f" --budget-s {budget_for(needed_s)}"
    command = f"tune-gpu compare {case.run_id}{case.place}{budget}{f' --rounds {rounds}' if rounds > confirm.max_rounds else ''}"
    about_s = None if about_s is None else round(about_s)
    return Decision(verdict=DecisionVerdict.MEASURE_LONGER, reason=reason, command=command, about_s=about_s, rests_on=case.rests_on)


def _round_s(case: Case) -> float | None:
    """Return the duration of one round of both arms in seconds, or None if nothing was measured."""
    if case.comparison is not None and case.comparison.n_rounds:
        return case.comparison.wall_s / case.comparison.n_rounds
    return None if case.deployment_s is None else 2.0 * case.deployment_s


def _sorted(
    case: Case, comparison: Comparison, verdict: DecisionVerdict, reason: str, command: str | None = None, about_s: float | None = None
) -> Decision:
    """Return a decision with all compared metrics, grouped by what is shown about them."""
    findings = comparison.findings
    better = tuple(each for each in findings if each.verdict == ComparisonVerdict.BETTER)
    worse = tuple(each for each in findings if each.verdict == ComparisonVerdict.WORSE)
    same = tuple(each for each in findings if each not in (*better, *worse) and each.within_tolerance)
    undecided = tuple(each for each in findings if each not in (*better, *worse, *same))
    return Decision(
        verdict=verdict, reason=reason, command=command, about_s=about_s, rests_on=case.rests_on, better=better, worse=worse, same=same, undecided=undecided
    )  # fmt: skip


def _once(findings: Iterable[FindingRecord]) -> list[FindingRecord]:
    return list({finding.metric: finding for finding in findings}.values())


def _loss(finding: FindingRecord) -> float:
    """Return how much worse the metric is estimated to be, in its unit; negative if it is better."""
    return -math.inf if finding.gain is None else -finding.gain


def _shown_beyond_tolerance(finding: FindingRecord) -> bool:
    """Return True if the metric is shown to be worse, and the estimate is beyond its tolerance. `promote` refuses that, and more rounds
    hardly change it."""
    return finding.verdict == ComparisonVerdict.WORSE and _loss(finding) > finding.tolerance


def _below(finding: FindingRecord, least_pct: float) -> bool:
    """Return True if the whole interval of a gain is below a percentage of the current value."""
    effect = finding.effect
    if effect is None or effect.low is None or effect.high is None:
        return False
    best = effect.high if finding.higher_is_better else -effect.low
    return _pct(finding, effect, best) < least_pct


def _pct(finding: FindingRecord, effect: EffectRecord, gain_in_unit: float) -> float:
    return gain_in_unit if finding.unit == "%" else 100.0 * gain_in_unit / (abs(effect.theirs) or 1.0)


def _accepted(finding: FindingRecord) -> str:
    """Return the setting that tolerates the estimated loss, rounded up to two digits."""
    loss = _loss(finding)
    step = 10.0 ** (math.floor(math.log10(loss)) - 1)
    return f"confirm.tolerances.{split_path(finding.metric)[0]}={math.ceil(loss / step) * step:g}"
