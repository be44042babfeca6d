"""Warn about limits of a run's measurements: a ramp that ended before a step failed, queues that grew, and answers of other lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.common.wording import counted
from tune_gpu.metrics import CONCURRENT_CAPACITY


def warnings_of(lines: Sequence[EvaluationRecord], best: Mapping[str, Any] | None, baseline: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return each warning as a sentence. It has the number of evaluations concerned, and whether the best and the baseline are among
    them."""
    measured = [line for line in lines if line.n_windows]
    found = []
    if best and (reason := _baseline_lost(lines, baseline)):
        found.append(f"the baseline could not be measured ({reason}), so that it is not known if the winner is better")
    if at_ceiling := [line for line in measured if line.at_ceiling]:
        sessions = max(line.metrics.get(CONCURRENT_CAPACITY.name) or 0 for line in at_ceiling)
        found.append(
            f"the ramp ended at its limit ({counted(sessions, 'session')}) in {_among(at_ceiling, measured, best, baseline)}: their capacities are lower bounds and cannot be "
            "compared; to compare them, raise workload.capacity_max_sessions"
        )
    if none := [line for line in measured if line.metrics.get(CONCURRENT_CAPACITY.name) == 0]:
        found.append(
            f"0 sessions in {_among(none, measured, best, baseline)}: even a single session misses the latency targets of the ramp (objective.targets, objective.*_target_ms), or too "
            "many of its turns fail"
        )
    if saturated := [line for line in measured if line.saturated]:
        found.append(
            f"saturated: more turns arrived than were served in {_among(saturated, measured, best, baseline)}: the queue grew during the whole window, and the "
            f"latencies with it; to compare them below saturation, lower {'traffic.arrivals' if any(line.of_sessions for line in saturated) else 'workload.turn_rate_per_s'}"
        )
    if late := [line for line in measured if line.saturated is None]:
        found.append(
            f"most turns were answered only after their window had ended in {_among(late, measured, best, baseline)}, and they are too few to distinguish a growing queue "
            "from slow answers; to find out, raise workload.window_s"
        )
    early = {service for line in measured for service in line.ended_early_pct}
    for service in sorted(early):
        shares = [share for line in measured if (share := line.ended_early_pct.get(service)) is not None]
        some = [line for line in measured if service in line.ended_early_pct]
        found.append(
            f"{service} ended up to {max(shares):.0f} % of its answers before workload.max_tokens in {_among(some, measured, best, baseline)}: the latencies of "
            "whole answers are of different lengths; compare its first token and the time between tokens, or set ignore_eos=true if the server knows it"
        )
    return tuple(found)


def _baseline_lost(lines: Sequence[EvaluationRecord], baseline: Mapping[str, Any] | None) -> str | None:
    """Return why no evaluation of the baseline has a fitness, or None if one has or none was made."""
    own = [line for line in lines if baseline and line.params == dict(baseline)]
    if not own or any(line.fitness is not None for line in own):
        return None
    failure = own[-1].failure
    return f"{failure.kind}: {failure.message}" if failure else f"it breaks {', '.join(own[-1].violations)}"


def _among(
    some: Sequence[EvaluationRecord], measured: Sequence[EvaluationRecord], best: Mapping[str, Any] | None, baseline: Mapping[str, Any] | None
) -> str:
    names = [name for name, params in (("the best", best), ("the baseline", baseline)) if params and any(line.params == dict(params) for line in some)]
    return f"{len(some)} of {counted(len(measured), 'evaluation')}" + (f", {' and '.join(names)} among them" if names else "")
