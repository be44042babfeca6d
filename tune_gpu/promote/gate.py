"""The conditions for deploying a winner. All of them must hold, and each reports what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tune_gpu.artifacts.lines import unchecked_of
from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.failures import FailureKind
from tune_gpu.config.schema import PromoteSettings, Services
from tune_gpu.metrics import OOM_EVENTS
from tune_gpu.services.mps_policy import SETTING, asks_for_mps
from tune_gpu.services.registry import services_of
from tune_gpu.telemetry.verdicts import NOT_PROVEN

DEVICE_KINDS = ("cuda", "cpu")
"""Devices of real measurements; `replayed` and `simulated` numbers are not measurements."""
_OUT_OF_MEMORY = frozenset({FailureKind.OOM, FailureKind.STARTUP_OOM, FailureKind.OOM_KILLED})


@dataclass(frozen=True)
class Condition:
    """One condition of the gate, with its result."""

    name: str
    holds: bool
    said: str

    def as_dict(self) -> dict[str, Any]:
        """Return the condition for the gate's record."""
        return asdict(self)


@dataclass(frozen=True)
class TargetDevice:
    """The device to deploy the winner on."""

    kind: str
    name: str | None
    """The card's name, or None if it is unknown here."""
    neighbours_mib: float | None
    """MiB that other processes use on the device, or None if that is unknown here."""


@dataclass(frozen=True)
class Evidence:
    """The evidence for the winner."""

    winner: Mapping[str, Any]
    comparison: Comparison | None
    """The comparison of the winner with the baseline, or None without one."""
    lines: Sequence[EvaluationRecord]
    """The run's evaluations."""
    device: DeviceRecord
    """The device on which they were measured."""
    difference: str | None = None
    """How the comparison's file differs from its deployments, or None if it does not."""


def conditions(evidence: Evidence, target: TargetDevice, settings: PromoteSettings) -> list[Condition]:
    """Return all conditions except the soak, which is measured only if these hold."""
    comparison = evidence.comparison
    if comparison is None:
        return [
            Condition("confirmed", False, "the winner was never compared with the baseline: run tune-gpu compare"),
            _device(evidence, evidence.device, target),
            _oom(evidence),
        ]
    return [
        _confirmed(evidence, comparison),
        _recomputed(evidence),
        _device(evidence, comparison.device, target),
        _oom(evidence),
        _neighbours(comparison, target, settings),
        gain(comparison, settings),
        no_worse(comparison),
    ]


def _confirmed(evidence: Evidence, comparison: Comparison) -> Condition:
    compared = comparison.our_arm.params
    if dict(compared) != dict(evidence.winner):
        return Condition("confirmed", False, f"the comparison measured {dict(compared)}, but the winner is {dict(evidence.winner)}: compare again")
    label = comparison.their_arm.label
    given = f" (against {comparison.their_arm.params}, {label})" if label else ""
    return Condition("confirmed", comparison.confirmed, f"{comparison.confirmed_why}{given}")


def _recomputed(evidence: Evidence) -> Condition:
    agrees = "the recorded deployments give the verdict that the comparison states"
    return Condition("recomputed", evidence.difference is None, evidence.difference or agrees)


def _device(evidence: Evidence, measured: DeviceRecord, target: TargetDevice) -> Condition:
    kind, name = measured.kind, measured.name
    if kind not in DEVICE_KINDS:
        return Condition("device", False, f"measured on {kind!r}, which is not a real device: such results are never deployed")
    if kind != target.kind:
        return Condition("device", False, f"measured on {kind}, the target is {target.kind}")
    if kind == "cuda" and target.name is not None and name != target.name:
        return Condition("device", False, f"measured on {name}, the target is {target.name}")
    unproven = [warning for warning in unchecked_of(evidence.lines, evidence.winner) if warning.startswith(NOT_PROVEN)]
    return Condition("device", True, "; ".join([f"measured on {kind} ({name}), as the target is", *unproven]))


def _oom(evidence: Evidence) -> Condition:
    of_winner = [line for line in evidence.lines if line.params == dict(evidence.winner)]
    events = sum(int(line.metrics.get(OOM_EVENTS.name) or 0) for line in of_winner)
    killed = [line.candidate_id for line in of_winner if line.failure and line.failure.kind in _OUT_OF_MEMORY]
    if evidence.comparison is not None:
        events += evidence.comparison.our_arm.oom_events
    if killed:
        return Condition("oom", False, f"the winner ran out of memory in {', '.join(killed)}")
    return Condition("oom", events == 0, f"{events} out-of-memory events while the winner was measured")


def _neighbours(comparison: Comparison, target: TargetDevice, settings: PromoteSettings) -> Condition:
    known = comparison.memory_in_use_at_start_mib
    beside = float(known or 0.0)  # unknown, so it may have been 0
    if target.neighbours_mib is None:
        return Condition("neighbours", False, "the memory that others use on the target is unknown here: set promote.neighbours_mib")
    measured = "the memory that others used during the measurement is unknown and counts as 0" if known is None else f"measured beside {beside:.0f} MiB of others"
    found = f"{measured}, the target has {target.neighbours_mib:.0f} MiB"
    return Condition("neighbours", target.neighbours_mib <= beside + settings.neighbours_tolerance_mib, found)


def sharing(services: Services) -> list[Condition]:
    """Return a condition that fails for a winner that was measured under MPS. Without MPS's daemon the services would take turns on the
    whole card, which was not measured."""
    if not asks_for_mps(services_of(services)):
        return []
    return [Condition("mps", False, f"measured under NVIDIA's MPS ({SETTING}), whose daemon promote does not deploy: set that knob to 100 and run again")]


def gain(comparison: Comparison, settings: PromoteSettings) -> Condition:
    """Return the condition that the winner is shown to be better than the baseline by at least `promote.min_gain_pct`."""
    finding = comparison.finding(settings.metric)
    if finding is None or finding.effect is None:
        return Condition("gain", False, f"{settings.metric} was not compared")
    effect, gained = finding.effect, finding.gain or 0.0
    pct = gained if finding.unit == "%" else 100.0 * gained / (abs(effect.theirs) or 1.0)
    word = "better" if pct >= 0.0 else "worse"
    found = (
        f"{settings.metric} is {abs(pct):.1f} % {word} than the baseline's ({finding.verdict}); required: shown to be better, by at least {settings.min_gain_pct:g} %"
    )
    return Condition("gain", finding.verdict == "better" and pct >= settings.min_gain_pct, found)


def no_worse(comparison: Comparison) -> Condition:
    """Return the condition that no metric is worse than the baseline's by more than its tolerance."""
    worse = []
    for finding in comparison.findings:
        effect = finding.effect
        loss = 0.0 if effect is None else effect.estimate * (-1.0 if finding.higher_is_better else 1.0)
        if not loss <= finding.tolerance:  # negated so that NaN fails
            worse.append(f"{finding.metric} is worse by {loss:.4g} {finding.unit} (tolerated: {finding.tolerance:g})")
    return Condition("no_worse", not worse, "; ".join(worse) or "no metric is worse than its tolerance allows")
