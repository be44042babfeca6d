"""Compute a comparison's verdict again from its recorded deployments. The verdict in its file is only compared with the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.records.comparison import ArmRecord, Comparison
from tune_gpu.artifacts.records.findings import FindingRecord
from tune_gpu.artifacts.redaction import REDACTED, Redactor
from tune_gpu.common import outside_files
from tune_gpu.compare.confirm import BASELINE, confirmed, speaks_for
from tune_gpu.compare.metrics import metrics_of
from tune_gpu.compare.records import make_arm_record
from tune_gpu.compare.rounds import findings_of
from tune_gpu.compare.samples import Replicate
from tune_gpu.compare.sequential import final_alpha, interim_alpha
from tune_gpu.compare.verdict import ComparisonVerdict
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.metrics import OOM_EVENTS

_MOST_LOOKS = 500
_CLOSE = 0.02
"""Tolerated deviation of an interval's ends, as a share of its width. The ends come from resampling, whose random numbers depend on NumPy's
version."""


def recomputed(config: ExperimentConfig, content: Comparison, replicates_file: Path) -> tuple[Comparison, str | None]:
    """Return the comparison computed from its deployments, and how its file differs from that (None if it does not).

    Args:
        config: the run's configuration. Its `confirm` has the requirements on a comparison, whatever the run itself required.
        content: `comparison.json` or `confirmation.json`.
        replicates_file: the file of its deployments.

    Raises:
        KeyError, TypeError, ValueError: this program did not write the files. UserError, a ValueError, is raised for a file beyond the
            limits of `outside_files`.
    """
    limit = outside_files.SAMPLES
    try:
        lines = outside_files.read_lines(replicates_file, limit)
    except outside_files.NotThere:
        return content, f"{replicates_file.name} is missing, so the verdict cannot be computed again: run tune-gpu compare"
    head, *deployed = [outside_files.parse_json(line, f"{replicates_file}, line {number}", limit) for number, line in enumerate(lines, 1)] or [{}]
    arms, ours, theirs = content.arms, content.ours, content.theirs
    n_replicates = sum(arm.n_deployments for arm in arms.values())
    replicates = [Replicate.from_dict(line) for line in deployed[:n_replicates]]
    alpha = _alpha(content)
    if alpha is None:
        return content, f"intervals at {content.interval_confidence} do not belong to a comparison at {content.confidence}"
    metrics = metrics_of(config)
    findings = findings_of(replicates, ours, theirs, metrics, alpha=alpha, tolerances=config.confirm.tolerances, seed=int(head["seed"]))
    shown, why = confirmed(findings, config.confirm.metric, content.ended_why, theirs)
    computed = replace(
        content,
        findings=tuple(finding.record() for finding in findings),
        arms=arms | {name: _measured_arm(replicates, name, arms[name]) for name in (ours, theirs)},
        confirmed=content.confirmed and shown and speaks_for(theirs, config.baseline),
        confirmed_why=why if content.confirmed else content.confirmed_why,
    )
    return computed, (
        _other_baseline(config, content)
        or _other_terms(config, content, head)
        or _other_counts(content, computed)
        or _other_findings(content.findings, computed.findings)
        or _other_confidence(config, content)
        or (f"the file says confirmed, but by its deployments: {why}" if content.confirmed and not computed.confirmed else None)
    )


def _alpha(content: Comparison) -> float | None:
    """Return the exact alpha that the last look spent, which the file has rounded. None if no look of such a comparison spends that
    much."""
    whole = 1.0 - content.confidence
    for looks in range(_MOST_LOOKS + 1):
        for alpha in (final_alpha(looks, whole), interim_alpha(looks + 1, whole)):
            if round(1.0 - alpha, 6) == content.interval_confidence:
                return alpha
    return None


def _measured_arm(replicates: Sequence[Replicate], name: str, stated: ArmRecord) -> ArmRecord:
    """Return the arm with its counts computed from the deployments."""
    return replace(make_arm_record(replicates, name, stated.params), source=stated.source, outside=stated.outside)


def _other_baseline(config: ExperimentConfig, content: Comparison) -> str | None:
    """Return how the baseline of a comparison differs from the run's, or None. Older programs stored a given baseline under the name of the
    run's own."""
    if content.theirs == BASELINE and config.baseline and content.their_arm.params != dict(config.baseline):
        return f"its baseline is {content.their_arm.params}, the run's is {dict(config.baseline)}: run tune-gpu compare"
    return None


def _other_terms(config: ExperimentConfig, content: Comparison, head: Mapping[str, Any]) -> str | None:
    """Return how the deployed arms, the device or the services' settings differ from the comparison's, or None."""
    for name in (content.ours, content.theirs):
        if head["arms"][name] != content.arms[name].params:
            return f"its {name} is {content.arms[name].params}, but {head['arms'][name]} was deployed as {name}"
    if head["device"] != content.device.kind:
        return f"the file says measured on {content.device.kind}, but its deployments were on {head['device']}"
    redactor = Redactor()
    usual, now = asdict(type(config.services)()), redactor.value(asdict(config.services))
    for service, settings in now.items():
        for name, value in settings.items():
            then = head["services"].get(service, {}).get(name, usual[service][name])  # the setting may be newer than the comparison
            hidden = REDACTED in f"{then}{value}"  # a value that was a secret on the other machine need not be one here
            if then != value and not hidden:
                return f"config.yaml has services.{service}.{name}={value}, but the deployments had {then}: run tune-gpu compare"
    return None


def _other_counts(content: Comparison, computed: Comparison) -> str | None:
    for name in (content.ours, content.theirs):
        stated, measured = content.arms[name], computed.arms[name]
        counts = (("n_deployments", stated.n_deployments, measured.n_deployments), (OOM_EVENTS.name, stated.oom_events, measured.oom_events))
        for key, given, found in counts:
            if given != found:
                return f"the file says {key}={given} for {name}, but its deployments give {found}"
    return None


def _other_confidence(config: ExperimentConfig, content: Comparison) -> str | None:
    asked, had = config.confirm.confidence, content.confidence
    return f"it was compared at a confidence of {had:g}, but confirm.confidence={asked:g}: run tune-gpu compare" if had < asked else None


def _other_findings(stated: Sequence[FindingRecord], found: Sequence[FindingRecord]) -> str | None:
    by_metric = {finding.metric: finding for finding in stated}
    known = [finding for finding in found if finding.metric in by_metric or finding.effect is not None]  # a metric that is newer than the comparison was not measured
    if set(by_metric) != (names := {finding.metric for finding in known}):
        return f"the file has findings on {', '.join(sorted(by_metric)) or 'nothing'}, but its deployments give findings on {', '.join(sorted(names))}"
    for finding in known:
        given = by_metric[finding.metric]
        if not _same(given, finding):
            return f"the file says {finding.metric} is {_shown(given)}, but its deployments give {_shown(finding)}"
    return None


def _same(stated: FindingRecord, found: FindingRecord) -> bool:
    unknown = found.verdict == ComparisonVerdict.UNKNOWN  # older programs gave a verdict on fewer turns or words, so only the computed one counts
    if (stated.unit, stated.higher_is_better) != (found.unit, found.higher_is_better) or not (unknown or stated.verdict == found.verdict):
        return False
    given, effect = stated.effect, found.effect
    if given is None or effect is None:
        return given is effect
    if (given.n_rounds, given.n_pairs) != (effect.n_rounds, effect.n_pairs):
        return False
    sizes = ((given.estimate, effect.estimate), (given.ours, effect.ours), (given.theirs, effect.theirs))
    if any(not math.isclose(float(one), other, rel_tol=1e-6, abs_tol=2e-5) for one, other in sizes):
        return False
    if unknown and (effect.low is None or effect.high is None):
        return True
    if given.low is None or given.high is None or effect.low is None or effect.high is None:
        return (given.low, given.high) == (effect.low, effect.high)
    allowed = max(_CLOSE * (effect.high - effect.low), 2e-5)
    return abs(float(given.low) - effect.low) <= allowed and abs(float(given.high) - effect.high) <= allowed


def _shown(finding: FindingRecord) -> str:
    effect = finding.effect
    if effect is None:
        return "not measured in both arms"
    interval = "" if effect.low is None or effect.high is None else f" ({float(effect.low):+.4g} … {float(effect.high):+.4g})"
    return f"{finding.verdict}, {float(effect.estimate):+.4g} {finding.unit}{interval}"
