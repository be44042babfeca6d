"""A comparison's verdict, computed again from the deployments that it recorded: what its file states is only compared with that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.redaction import REDACTED, Redactor
from tune_gpu.common import outside_files
from tune_gpu.compare.confirm import BASELINE, confirmed
from tune_gpu.compare.metrics import standard_metrics
from tune_gpu.compare.rounds import blocks_summary, findings_of
from tune_gpu.compare.samples import Block
from tune_gpu.compare.sequential import final_alpha, interim_alpha
from tune_gpu.config.schema import ExperimentConfig, Services
from tune_gpu.metrics import OOM_EVENTS

_MOST_LOOKS = 500
_CLOSE = 0.02
"""Of an interval's width: its ends come from resampling, whose random numbers another version of numpy may draw differently."""


def recomputed(config: ExperimentConfig, content: Mapping[str, Any], blocks_file: Path) -> tuple[dict[str, Any], str | None]:
    """The comparison as its deployments give it, and in what its file says something else (null: in nothing).

    Args:
        config: of the run; its `confirm` is what is asked of a comparison, whatever the run asked of its own.
        content: `comparison.json` or `confirmation.json`.
        blocks_file: the deployments beside it.

    Raises:
        KeyError, TypeError, ValueError: files that this program did not write (UserError is one, for a file beyond the limits of `outside_files`).
    """
    limit = outside_files.SAMPLES
    try:
        lines = outside_files.read_lines(blocks_file, limit)
    except outside_files.NotThere:
        return dict(content), f"{blocks_file.name} is missing, so that the verdict cannot be computed again: run tune-gpu compare"
    head, *deployed = [outside_files.parse_json(line, f"{blocks_file}, line {number}", limit) for number, line in enumerate(lines, 1)] or [{}]
    arms, ours, theirs = content["arms"], content["ours"], content["theirs"]
    n_blocks = sum(int(arm["n_deployments"]) for arm in arms.values())
    blocks = [Block.from_dict(line) for line in deployed[:n_blocks]]
    alpha = _alpha(content)
    if alpha is None:
        return dict(content), f"intervals at {content['interval_confidence']} are none of a comparison at {content['confidence']}"
    metrics = standard_metrics(config.objective.latency_percentile)
    findings = findings_of(blocks, ours, theirs, metrics, alpha=alpha, tolerances=config.confirm.tolerances, seed=int(head["seed"]))
    shown, why = confirmed(findings, config.confirm.metric, str(content["ended_why"]))
    found = [finding.as_dict() for finding in findings]
    computed = dict(content) | {
        "findings": found,
        "arms": arms | {name: arms[name] | blocks_summary(blocks, name) for name in (ours, theirs)},
        "confirmed": bool(content["confirmed"]) and shown and theirs == BASELINE,
        "confirmed_why": why if content["confirmed"] else content["confirmed_why"],
    }
    return computed, (
        _other_terms(config, content, head)
        or _other_counts(content, computed)
        or _other_findings(content["findings"], found)
        or _other_confidence(config, content)
        or (f"it says confirmed, its deployments say: {why}" if content["confirmed"] and not computed["confirmed"] else None)
    )


def _alpha(content: Mapping[str, Any]) -> float | None:
    """Return what the last look spent, exactly: the file has it rounded. Null where no look of such a comparison spends that."""
    whole = 1.0 - float(content["confidence"])
    for looks in range(_MOST_LOOKS + 1):
        for alpha in (final_alpha(looks, whole), interim_alpha(looks + 1, whole)):
            if round(1.0 - alpha, 6) == content["interval_confidence"]:
                return alpha
    return None


def _other_terms(config: ExperimentConfig, content: Mapping[str, Any], head: Mapping[str, Any]) -> str | None:
    """Who was deployed: the arms' parameters, the device and the services' settings."""
    for name in (content["ours"], content["theirs"]):
        if head["arms"][name] != content["arms"][name]["params"]:
            return f"its {name} is {content['arms'][name]['params']}, what was deployed as {name} is {head['arms'][name]}"
    if head["device"] != content["device"]["kind"]:
        return f"it says measured on {content['device']['kind']}, its deployments were on {head['device']}"
    redactor = Redactor()
    usual, now = asdict(Services()), redactor.value(asdict(config.services))
    for service, settings in now.items():
        for name, value in settings.items():
            then = head["services"].get(service, {}).get(name, usual[service][name])  # a setting that is newer than the comparison
            hidden = REDACTED in f"{then}{value}"  # what was a secret there and then need not be one here
            if then != value and not hidden:
                return f"config.yaml has services.{service}.{name}={value}, the deployments had {then}: run tune-gpu compare"
    return None


def _other_counts(content: Mapping[str, Any], computed: Mapping[str, Any]) -> str | None:
    for name in (content["ours"], content["theirs"]):
        for key in ("n_deployments", OOM_EVENTS.name):
            said, found = content["arms"][name].get(key), computed["arms"][name][key]
            if said != found:
                return f"it says {key}={said} of {name}, its deployments say {found}"
    return None


def _other_confidence(config: ExperimentConfig, content: Mapping[str, Any]) -> str | None:
    asked, had = config.confirm.confidence, float(content["confidence"])
    return f"it was compared at a confidence of {had:g}, confirm.confidence asks for {asked:g}: run tune-gpu compare" if had < asked else None


def _other_findings(stated: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> str | None:
    by_metric = {finding["metric"]: finding for finding in stated}
    if set(by_metric) != (names := {finding["metric"] for finding in found}):
        return f"it has findings on {', '.join(sorted(by_metric)) or 'nothing'}, its deployments on {', '.join(sorted(names))}"
    for finding in found:
        said = by_metric[finding["metric"]]
        if not _same(said, finding):
            return f"it says {finding['metric']} is {_told(said)}, its deployments say {_told(finding)}"
    return None


def _same(stated: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    keys = ("verdict", "unit", "higher_is_better")
    if any(stated[key] != found[key] for key in keys) or (stated["effect"] is None) != (found["effect"] is None):
        return False
    if found["effect"] is None:
        return True
    said, effect = stated["effect"], found["effect"]
    if any(int(said[key]) != effect[key] for key in ("n_rounds", "n_pairs")):
        return False
    if any(not math.isclose(float(said[key]), effect[key], rel_tol=1e-6, abs_tol=2e-5) for key in ("estimate", "ours", "theirs")):
        return False
    if effect["low"] is None or said["low"] is None:
        return bool(said["low"] == effect["low"] and said["high"] == effect["high"])
    allowed = max(_CLOSE * (effect["high"] - effect["low"]), 2e-5)
    return all(abs(float(said[key]) - effect[key]) <= allowed for key in ("low", "high"))


def _told(finding: Mapping[str, Any]) -> str:
    effect = finding["effect"]
    if effect is None:
        return "not measured in both"
    low, high = effect["low"], effect["high"]
    interval = "" if low is None or high is None else f" ({float(low):+.4g} … {float(high):+.4g})"
    return f"{finding['verdict']}, {float(effect['estimate']):+.4g} {finding['unit']}{interval}"
