"""Build the summary and the winner file of a run from its lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tune_gpu.artifacts.deployments import evidence_of, key_of
from tune_gpu.artifacts.lines import engine_started, line_of, started_services
from tune_gpu.artifacts.records.comparison import ConfirmationSummary
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.ends import RunEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.summary import Costs, GenerationRecord, RunSummary, StandingRecord
from tune_gpu.artifacts.records.winner import WinnerEvidence, WinnerFile
from tune_gpu.common.failures import Status
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.service_settings import PAIR
from tune_gpu.evaluation.exercised import exercise_of
from tune_gpu.experiment.warnings import warnings_of
from tune_gpu.search.evidence import Evidence
from tune_gpu.search.tournament import Standing, Tournament
from tune_gpu.telemetry.neighbours import rounded


def standing_of(
    lines: Sequence[EvaluationRecord], standing: Standing, *, evidence: Evidence | None = None, objectives: bool = False
) -> StandingRecord:
    """Return a configuration with the combined result of its evaluations.

    Args:
        lines: all evaluations of the run.
        standing: the configuration.
        evidence: the evidence of the lines; None to compute it.
        objectives: whether to include its objectives.
    """
    evidence, key = evidence or evidence_of(lines), key_of(standing.params)
    found = StandingRecord(
        params=standing.params,
        fitness=standing.fitness,
        fitness_stderr=None,
        n_evaluations=standing.n_evaluations,
        n_windows=standing.n_windows,
        evaluations=tuple(line.candidate_id for line in lines if line.params == standing.params),
        objectives=standing.objectives if objectives else None,
    )
    if key in evidence:
        found = replace(found, n_deployments=evidence.deployments_of(key))
    if standing.fitness is None or key not in evidence or math.isinf((known := evidence.estimate(key)).stderr):
        return found
    fitness = standing.fitness if evidence.noise_free else known.mean
    return replace(
        found, fitness=fitness, fitness_stderr=known.stderr, fitness_interval=known.interval(), next_deployment=evidence.prediction(key).interval()
    )


def summarise_run(
    tournament: Tournament,
    lines: Sequence[EvaluationRecord],
    *,
    run_id: str,
    experiment: str,
    device: str,
    wall_s: float,
    baseline: Mapping[str, Any],
    ended: RunEnd,
    anchors: Sequence[EvaluationRecord] = (),
    repeated: str | None = None,
    setup_s: float = 0.0,
    confirm_s: float = 0.0,
    config: ExperimentConfig | None = None,
) -> RunSummary:
    """Build the summary of a run.

    Args:
        tournament: the search.
        lines: all evaluations of the run.
        anchors: further deployments of the baseline.
        repeated: a sentence on what these show.
        baseline: the baseline's parameters; empty without a baseline.
        config: of the run; None to not judge what its traffic exercised.
    """
    standings = tournament.standings()
    best, evidence = tournament.best(), evidence_of(lines, anchors)
    base = next((s for s in standings if s.params == dict(baseline)), None) if baseline else None
    generations = sorted({line.generation for line in lines})
    survivors = tournament.survivors
    return RunSummary(
        experiment=experiment,
        run_id=run_id,
        device=device,
        ended=str(ended),
        counts=dict(Counter(line.outcome for line in lines)),
        n_evaluations=len(lines),
        n_configurations=len({repr(sorted(line.params.items())) for line in lines}),
        failures=dict(Counter(line.failure.kind for line in lines if line.failure)),
        best=standing_of(lines, best, evidence=evidence) if best else None,
        baseline=standing_of(lines, base, evidence=evidence) if base else None,
        pareto_front=tuple(standing_of(lines, standing, evidence=evidence, objectives=True) for standing in tournament.front()),
        ties=_ties(evidence, standings, best),
        warnings=warnings_of(lines, best.params if best else None, baseline),
        exercise=exercise_of(lines, config, anchors) if config else None,
        n_deployments=sum(line.status is not Status.INFEASIBLE for line in (*lines, *anchors)),
        repeated=repeated,
        between_deployments=evidence.between,
        generations=tuple(
            GenerationRecord(
                generation=number,
                fitness={line.candidate_id: line.fitness for line in lines if line.generation == number},
                survivors=tuple(survivors[number]) if number < len(survivors) else (),
            )
            for number in generations
        ),
        costs=_costs(lines, anchors, wall_s=wall_s, setup_s=setup_s, confirm_s=confirm_s),
    )


def _costs(lines: Sequence[EvaluationRecord], anchors: Sequence[EvaluationRecord], *, wall_s: float, setup_s: float, confirm_s: float) -> Costs:
    duration = [line.duration_s for line in lines]
    anchors_s = sum(line.wall_s or 0.0 for line in anchors)
    starts = [service for line in (*lines, *anchors) for service in started_services(line)]
    return Costs(
        wall_s=round(wall_s, 1),
        engine_starts=sum(1 for line in (*lines, *anchors) if engine_started(line)),
        service_starts=None if set(starts) <= set(PAIR) else len(starts),
        start_s=round(sum(d.start for d in duration), 1),
        warm_s=round(sum(d.warm for d in duration), 1),
        load_s=round(sum(d.load for d in duration), 1),
        stop_s=round(sum(d.stop for d in duration), 1),
        setup_s=round(setup_s, 1),
        confirm_s=round(confirm_s, 1),
        anchors_s=round(anchors_s, 1),
        orchestration_s=round(wall_s - confirm_s - anchors_s - sum(d.start + d.warm + d.load + d.stop for d in duration), 1),
        measuring_share=round(sum(d.load for d in duration) / wall_s, 3) if wall_s else None,
    )


def _ties(evidence: Evidence, standings: Sequence[Standing], best: Standing | None) -> tuple[dict[str, Any], ...]:
    """Return the best configuration and those that the evidence cannot distinguish from it; empty if there are none."""
    if best is None or key_of(best.params) not in evidence:
        return ()
    tied = {key_of(best.params), *evidence.tied_with(key_of(best.params))}
    found = [best.params, *(one.params for one in standings if one.params != best.params and key_of(one.params) in tied)]
    return tuple(found) if len(found) > 1 else ()


def winner_of(
    summary: RunSummary,
    lines: Sequence[EvaluationRecord],
    device: DeviceRecord,
    neighbours_mib: float | None,
    confirmation: ConfirmationSummary,
) -> WinnerFile:
    """Build the winner file of a run. Raise ValueError for a run without a winner."""
    if (best := summary.best) is None:
        raise ValueError(f"{summary.run_id} has no winner")
    line, base = line_of(lines, best.params), summary.baseline
    if device.total_mib is None and line and line.measured_on:  # on a cluster the driver's machine may have no card
        device, neighbours_mib = line.measured_on, line.metrics["neighbours"]["memory_mib"]
    return WinnerFile(
        experiment=summary.experiment,
        run_id=summary.run_id,
        best_params=best.params,
        best_metrics=line.metrics if line else {},
        fitness=best.fitness,
        fitness_stderr=best.fitness_stderr,
        confirmed=confirmation.confirmed,
        confirmed_why=confirmation.confirmed_why,
        confirmation=confirmation.confirmation,
        evidence=WinnerEvidence(
            evaluations=best.evaluations,
            n_windows=best.n_windows,
            ties=summary.ties,
            baseline=base,
            gain_over_baseline=best.fitness - base.fitness if base and base.fitness is not None and best.fitness is not None else None,
        ),
        device=device,
        memory_in_use_at_start_mib=rounded(neighbours_mib),
        best_metrics_of=line.candidate_id if line else None,
        decision=summary.decision,
    )
