"""Turn what an evaluation has seen into the metrics of its candidate. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from tune_gpu.common.catalogue import FITNESS_TERMS, Catalogue
from tune_gpu.common.metric import Metric
from tune_gpu.config.schema import ObjectiveSettings
from tune_gpu.evaluation.engine_metrics import Facts, engine_metrics, ideal_metrics
from tune_gpu.evaluation.errors import FitnessErrors, capacity_error, clip_shares, groups_left_out, jackknife
from tune_gpu.evaluation.measurement import Score
from tune_gpu.evaluation.objective import evaluate
from tune_gpu.evaluation.state import EvaluationState
from tune_gpu.metrics import CAPACITY, KV_CACHE_PEAK, PAIR, REQUESTS_AT_ONCE, WER
from tune_gpu.services.running import KV_CACHE_PCT
from tune_gpu.telemetry.neighbours import rounded
from tune_gpu.telemetry.sampler import DeviceSample, DeviceStats
from tune_gpu.workload.capacity import with_error
from tune_gpu.workload.saturation import saturation_of
from tune_gpu.workload.sessions.achieved import achieved_of
from tune_gpu.workload.summary import TrafficSummary, interference, rates_without_clips, summarise


def score_metrics(
    running: EvaluationState, facts: Facts, objective: ObjectiveSettings, trials_per_card: int | None, catalogue: Catalogue = PAIR
) -> tuple[dict[str, Any], Score]:
    """Return all metrics and their score; a metric that was not measured is None.

    The fitness is computed from all samples of all windows together. `fitness_windows` has the fitness of each window alone, from fewer samples:
    it compares two candidates window by window, and its mean is not the fitness.

    Args:
        running: windows, capacity and transcripts.
        facts: what each service reported of itself when it was ready, by its name.
        objective: the weights of the fitness.
        trials_per_card: how many evaluations shared the card; None without a card.
        catalogue: the metrics of the space.
    """
    if running.capacity:
        running = replace(running, capacity=with_error(running.capacity, objective, [window.turns for window in running.windows], catalogue))
    pooled = summarise(running.windows, catalogue, extra_turns=running.transcripts)
    whole = _with_device(pooled, running.device, running, facts, catalogue)
    whole |= ideal_metrics(running.ideals, whole, catalogue)
    judged = evaluate(whole, objective, catalogue)
    error_rates = {metric.name: whole[metric.name] for metric in catalogue.of_entry(WER)}  # every clip counts, whichever windows had it

    def fitness_of(rules: ObjectiveSettings, chosen: list[int]) -> float | None:
        traffic = summarise([running.windows[at] for at in chosen], catalogue)
        measured = _with_device(traffic, [running.device[at] for at in chosen], running, facts, catalogue)
        return evaluate(measured | error_rates, rules, catalogue).fitness

    every = list(range(len(running.windows)))
    without_limits = replace(objective, max_wer=None, max_failed_requests_pct=None, limits={})
    errors = _errors(running, whole, without_limits, catalogue, lambda chosen: fitness_of(without_limits, chosen))
    metrics = whole | {
        **errors.as_metrics(),
        "fitness_windows": [fitness_of(objective, [at]) for at in every],
        FITNESS_TERMS: judged.terms,
        "sessions": achieved_of(running.windows, running.fillings),
        "saturation": saturation.as_dict() if (saturation := saturation_of(running.windows)) else None,
        "interference_ratio": interference(pooled, running.solo) if running.solo else None,
        "n_invalid_windows": running.n_invalid,
        "neighbours": running.neighbours.as_dict(),
        "unchecked": list(running.unchecked),
        "trials_per_card": trials_per_card,
        "device_trace": _trace([moment for window in running.device for moment in window.moments], catalogue),
    }
    return metrics, Score(judged.fitness, errors.total, judged.violations)


def _errors(
    running: EvaluationState,
    whole: Mapping[str, Any],
    rules: ObjectiveSettings,
    catalogue: Catalogue,
    fitness_of: Callable[[list[int]], float | None],
) -> FitnessErrors:
    """Resample each part of the measurement; `rules` have no limits."""
    every = list(range(len(running.windows)))

    def score(changed: Mapping[str, Any]) -> float | None:
        return evaluate({**whole, **changed}, rules, catalogue).fitness

    def weighs(metric: Metric) -> bool:
        return metric.term is not None and rules.weights.get(metric.term.name, 0.0) > 0.0

    rates = catalogue.of_entry(WER)
    rates_weigh = any(weighs(rate) for rate in rates)
    if len(every) > 1:
        left_out = [fitness_of([at for at in every if at != one]) for one in every]
    else:
        parts = [part for window in running.windows for part in groups_left_out(window)]
        left_out = [score(summarise([part], catalogue).as_metrics() | {rate.name: whole[rate.name] for rate in rates}) for part in parts]
    capacity = running.capacity
    return FitnessErrors(
        windows=jackknife(left_out),
        capacity=capacity_error(score, whole[CAPACITY.name], capacity.stderr if capacity else None, weighs=weighs(CAPACITY)),
        clips=clip_shares(score, _without_clips(running, rates) if rates_weigh else {}, weighs=rates_weigh),
    )


def _without_clips(running: EvaluationState, rates: Sequence[Metric]) -> dict[str, dict[str, float]]:
    """Return for each clip the error rates without it, by their names."""
    found: dict[str, dict[str, float]] = {}
    for rate in rates:
        for clip, value in rates_without_clips(running.windows, running.transcripts, rate.service or None).items():
            found.setdefault(clip, {})[rate.name] = value
    return found


def _with_device(
    traffic: TrafficSummary, device: Sequence[DeviceStats], running: EvaluationState, facts: Facts, catalogue: Catalogue
) -> dict[str, Any]:
    utilization = [window.utilization_pct for window in device if window.utilization_pct is not None]
    used = [window.peak_used_mib for window in device if window.peak_used_mib is not None]
    services = {name for window in device for name in window.peak_service_mib}
    capacity = running.capacity
    return traffic.as_metrics() | {
        "gpu_utilization": round(statistics.fmean(utilization), 2) if utilization else None,
        "memory_used_mib": round(max(used), 1) if used else None,
        "service_memory_mib": {name: _peak_mib(name, device) for name in sorted(services)},
        **engine_metrics(device, facts, catalogue),
        REQUESTS_AT_ONCE.name: {catalogue.label(service): most for service, most in running.at_once.items()},
        "energy_per_request_j": energy_per_request_j(device, traffic),
        "oom_events": sum(window.oom_events for window in device),
        "concurrent_capacity": capacity.sessions if capacity else None,
        "capacity_continuous": round(capacity.continuous, 4) if capacity else None,
        "capacity_at_ceiling": capacity.at_ceiling if capacity else None,
        "capacity_interval": [round(end, 4) for end in capacity.interval] if capacity and capacity.interval else None,
    }


def _peak_mib(service: str, device: Sequence[DeviceStats]) -> float | None:
    """Return the greatest memory of a service, or None if the device reported it in no window."""
    return rounded(max((mib for window in device if (mib := window.peak_service_mib.get(service)) is not None), default=None))


def energy_per_request_j(device: Sequence[DeviceStats], traffic: TrafficSummary) -> float | None:
    """Return the joules of the whole device an answered request, or None if the device does not report its power."""
    spent = [window.energy_j for window in device]
    answered = traffic.n_requests - traffic.n_failed
    if not answered or not spent or any(joules is None for joules in spent):
        return None
    return round(sum(joules for joules in spent if joules is not None) / answered, 3)


def _trace(moments: Sequence[DeviceSample], catalogue: Catalogue) -> dict[str, list[float | None]]:
    """Return the device samples, one a second, as columns; the services' gauges are among them."""
    columns = {part.name: [getattr(moment, part.name) for moment in moments] for part in fields(DeviceSample) if part.name != "gauges"}
    caching = [service for service, protocol in catalogue.protocols.items() if protocol in KV_CACHE_PEAK.protocols]
    seen = [(service, gauge) for moment in moments for service, readings in moment.gauges.items() for gauge in readings]
    for service, gauge in dict.fromkeys([*((service, KV_CACHE_PCT) for service in caching), *seen]):
        columns[catalogue.key(gauge, service)] = [moment.gauges.get(service, {}).get(gauge) for moment in moments]
    return columns
