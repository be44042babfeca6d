"""From the outcome of a comparison to its record: `comparison.json`, or a run's `confirmation.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.artifacts.records.comparison import ArmRecord, Comparison
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.common.clock import now
from tune_gpu.common.wording import counted
from tune_gpu.compare.arms import Origin
from tune_gpu.compare.rounds import Outcome, Rules
from tune_gpu.compare.samples import Replicate, ended_early_key
from tune_gpu.compare.verdict import Finding, sentence
from tune_gpu.telemetry.neighbours import rounded


def make_comparison(
    *,
    run_id: str,
    experiment: str,
    device: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    ours: str,
    theirs: str,
    findings: Sequence[Finding],
    outcome: Outcome,
    rules: Rules,
    neighbours_mib: float | None,
    confirmed: bool,
    confirmed_why: str,
    rivals: Mapping[str, Finding] | None = None,
    origins: Mapping[str, Origin] | None = None,
    traffic: str | None = None,
) -> Comparison:
    """Build the record of one comparison, for other tools and for `promote`."""
    origins = origins or {}
    label = origins[theirs].label if theirs in origins else ""
    records = {name: make_arm_record(outcome.replicates, name, params, origins.get(name)) for name, params in arms.items()}
    return Comparison(
        run_id=run_id,
        experiment=experiment,
        device=DeviceRecord.parse(device, "the device"),
        memory_in_use_at_start_mib=rounded(neighbours_mib),
        ended_at=now(),
        ours=ours,
        theirs=theirs,
        arms=records,
        sentence=sentence(findings, ours) + (f", against {theirs} ({label})" if label else "") + early_remark(records, ours, theirs),
        findings=tuple(finding.record() for finding in findings),
        n_rounds=outcome.n_rounds,
        ended=str(outcome.ended),
        ended_why=outcome.why,
        confidence=rules.confidence,
        interval_confidence=round(1.0 - outcome.alpha, 6),
        wall_s=outcome.wall_s,
        seed=rules.seed,
        confirmed=confirmed,
        confirmed_why=confirmed_why,
        rivals=None if rivals is None else {arm: finding.record() for arm, finding in rivals.items()},
        traffic=traffic,
    )


def early_remark(arms: Mapping[str, ArmRecord], ours: str, theirs: str) -> str:
    """Return a remark on answers that their model ended early, or "" if there are none."""
    found = ""
    for service in dict.fromkeys(name for arm in (ours, theirs) for name in arms[arm].ended_early):
        shares = " and ".join(f"{arms[arm].ended_early.get(service, 0)} of {counted(arms[arm].n_turns, 'turn')} of {arm}" for arm in (ours, theirs))
        found += f"; {service} ended its answer early in {shares}, so that latencies of whole answers are of different lengths"
    return found


def make_arm_record(replicates: Sequence[Replicate], arm: str, params: Mapping[str, Any], origin: Origin | None = None) -> ArmRecord:
    """Build the record of one arm from its replicates."""
    of_arm = [replicate for replicate in replicates if replicate.arm == arm]
    turns = [turn for replicate in of_arm for turn in replicate.turns]
    return ArmRecord(
        params=dict(params),
        n_deployments=len(of_arm),
        n_turns=len(turns),
        n_failed_turns=sum(turn.error is not None for turn in turns),
        n_failed_deployments=sum(replicate.failure is not None for replicate in of_arm),
        oom_events=sum(replicate.oom_events for replicate in of_arm),
        source=origin.source if origin else None,
        outside=dict(origin.outside) if origin else {},
        ended_early=dict(Counter(key.removesuffix(ended_early_key("")) for turn in turns for key in turn.values if key.endswith(ended_early_key("")))),
    )
