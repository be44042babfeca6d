"""Compare the best few of a run again at its end, under traffic that the search has not used, before one is named the winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_gpu.artifacts.reading import place_of
from tune_gpu.artifacts.records.comparison import ArmSource, Comparison
from tune_gpu.artifacts.records.ends import ComparisonEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.compare.arms import make_origin
from tune_gpu.compare.confirm import BASELINE, WINNER, Standings, confirmed, contenders, standings
from tune_gpu.compare.forecast import Forecast, forecast, times_of
from tune_gpu.compare.measuring_actor import MeasurementLost
from tune_gpu.compare.metrics import metrics_of
from tune_gpu.compare.progress import PrintLine, ProgressReporter
from tune_gpu.compare.records import make_comparison
from tune_gpu.compare.rounds import Outcome, PairedExperiment
from tune_gpu.compare.samples import Replicate
from tune_gpu.compare.setup import comparison_client, make_rules, make_terms, measure_in
from tune_gpu.compare.store import ReplicateStore
from tune_gpu.config.schema import ExperimentConfig

_SOURCES = {WINNER: ArmSource.WINNER, BASELINE: ArmSource.BASELINE}


@dataclass(frozen=True)
class RunConfirmation:
    """The result of a confirmation."""

    confirmed: bool
    why: str
    winner: dict[str, Any]
    """The search's best, unless another of the best few was shown to be better."""
    record: Comparison | None = None
    """The content of `confirmation.json`; None if nothing was compared."""
    interrupted: bool = False
    needed_s: float | None = None
    """How long a confirmation would take, in seconds; None if one was made or is not wanted."""


def confirm_run(
    config: ExperimentConfig,
    kind: str,
    folder: RunFolder,
    best: Mapping[str, Any],
    lines: Sequence[EvaluationRecord],
    resources: Mapping[str, float],
    print_line: PrintLine,
) -> RunConfirmation:
    """Compare the best few with each other and the winner with the baseline. Resume a stopped comparison. Ray must be running."""
    winner = dict(best)
    if why := _needless(config, winner):
        return RunConfirmation(False, why, winner)
    arms = contenders(winner, config.baseline, lines, config.confirm.candidates)
    if (times := times_of(lines, config)) is not None:
        planned = forecast(config, times, len(arms) - 1)
        if not planned.fits:
            print_line(f"not confirming the winner: {planned.too_short}; afterwards: {compare_command(folder, planned)}")
            return RunConfirmation(False, planned.too_short, winner, needed_s=planned.needed_s)
        print_line(planned.room)
        config, arms = planned.config, contenders(winner, config.baseline, lines, planned.n_arms - 1)
    rules = make_rules(config)
    terms = make_terms(config, kind, arms, rules.windows)
    store = ReplicateStore(folder.path / "confirmation.jsonl", terms, folder.redactor)
    metrics = metrics_of(config)

    def judged(replicates: Sequence[Replicate], alpha: float) -> Standings:
        return standings(replicates, list(arms), metrics, config.confirm, alpha=alpha, seed=rules.seed)

    spent_s = sum(replicate.wall_s for replicate in store.replicates())
    print_line(f"confirming the winner against {', '.join(arm for arm in arms if arm != WINNER)} (at most {rules.budget_s:.0f} s)")
    try:
        with comparison_client(config, kind, resources, print_line) as client:
            experiment = PairedExperiment(
                list(arms), rules, store, measure_in(client, arms), ProgressReporter(print_line, rules.budget_s, spent_s), (WINNER, BASELINE)
            )
            outcome = experiment.run(lambda replicates, alpha: judged(replicates, alpha).decided)
    except MeasurementLost as error:
        return RunConfirmation(False, str(error), winner)
    except KeyboardInterrupt:  # while services are started or stopped
        return RunConfirmation(False, "it was interrupted", winner, interrupted=True)
    found = judged(outcome.replicates, outcome.alpha)
    holds, why = _verdict(config, found, outcome)
    content = make_comparison(
        run_id=folder.run_id,
        experiment=config.name,
        device=client.device,
        arms=arms,
        ours=found.leader,
        theirs=BASELINE,
        findings=found.against_baseline,
        outcome=outcome,
        rules=rules,
        neighbours_mib=client.neighbours_mib,
        confirmed=holds,
        confirmed_why=why,
        rivals=found.rivals,
        origins={arm: make_origin(config, params, _SOURCES.get(arm, ArmSource.RIVAL)) for arm, params in arms.items()},
        traffic=terms["traffic"],
    )
    folder.write_json("confirmation.json", content)
    return RunConfirmation(holds, why, dict(arms[found.leader]), content, outcome.ended is ComparisonEnd.INTERRUPTED)


def compare_command(folder: RunFolder, planned: Forecast) -> str:
    """Return the command that confirms the winner after the run, with the time that it takes."""
    return f"tune-gpu compare {folder.run_id}{place_of(folder)} --budget-s {planned.budget_s} (about {planned.needed_s:.0f} s or more)"


def _needless(config: ExperimentConfig, winner: Mapping[str, Any]) -> str | None:
    if not config.confirm.enabled:
        return "confirm.enabled=false: no A/B comparison with the baseline has been made"
    if not config.baseline:
        return "there is no baseline to compare with"
    if dict(config.baseline) == dict(winner):
        return "the winner is the baseline itself: there is nothing to show"
    return None


def _verdict(config: ExperimentConfig, found: Standings, outcome: Outcome) -> tuple[bool, str]:
    if outcome.ended is ComparisonEnd.FAILED:
        return False, outcome.why
    return confirmed(found.against_baseline, config.confirm.metric, outcome.why)

