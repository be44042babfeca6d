"""What a comparison leaves: `comparison.json`, and its part of the winner file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.common.clock import now
from tune_gpu.compare.rounds import Outcome, Rules, blocks_summary
from tune_gpu.compare.verdict import Finding, sentence
from tune_gpu.telemetry.neighbours import rounded


def record(
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
) -> dict[str, Any]:
    """The result of one comparison, for other tools and for `promote`."""
    return {
        "schema_version": 1,
        "run_id": run_id,
        "experiment": experiment,
        "device": dict(device),
        "memory_in_use_at_start_mib": rounded(neighbours_mib),
        "ended_at": now(),
        "ours": ours,
        "theirs": theirs,
        "arms": {name: {"params": dict(params), **blocks_summary(outcome.blocks, name)} for name, params in arms.items()},
        "sentence": sentence(findings, ours),
        "findings": [finding.as_dict() for finding in findings],
        "n_rounds": outcome.n_rounds,
        "ended": str(outcome.ended),
        "ended_why": outcome.why,
        "confidence": rules.confidence,
        "interval_confidence": round(1.0 - outcome.alpha, 6),
        "wall_s": outcome.wall_s,
        "seed": rules.seed,
    }


def confirmation_of(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the winner file says of it: `confirmed`, why, and the evidence."""
    return {
        "confirmed": comparison["confirmed"],
        "confirmed_why": comparison["confirmed_why"],
        "confirmation": {
            "sentence": comparison["sentence"],
            "findings": comparison["findings"],
            "baseline": comparison["arms"][comparison["theirs"]]["params"],
            "n_rounds": comparison["n_rounds"],
            "n_turns": comparison["arms"][comparison["ours"]]["n_turns"],
            "ended_at": comparison["ended_at"],
        },
    }
