"""Print the last lines of a run: what was measured, what to do and why, and how certain that is."""

from __future__ import annotations

from rich.console import Console

from tune_gpu.artifacts.records.summary import RunSummary, StandingRecord
from tune_gpu.cli.decision_view import print_decision, print_findings, print_sentence
from tune_gpu.cli.progress import describe_params
from tune_gpu.common.failures import Status
from tune_gpu.common.wording import counted


def print_result(console: Console, summary: RunSummary) -> None:
    """Print what was measured, and the results if there is a winner."""
    print_sentence(console, extent_text(summary))
    if summary.best is None:
        _print_exercise(console, summary)
        return
    if summary.decision is not None:
        print_decision(console, summary.decision)
        print_findings(console, summary.decision)
    print_sentence(console, f"winner: {describe_params(summary.best.params)}", style="bold green")
    print_sentence(console, f"fitness {fitness_text(summary.best)}", indent=2)
    if (base := summary.baseline) is not None and base.fitness is not None and base.params != summary.best.params:
        print_sentence(console, f"baseline: {describe_params(base.params)}, fitness {fitness_text(base)}", indent=2)
    _print_confirmation(console, summary)
    for warning in summary.warnings:
        print_sentence(console, warning, style="yellow", indent=2)
    _print_exercise(console, summary)
    if summary.repeated:
        print_sentence(console, summary.repeated, indent=2)
    if summary.ties:
        print_sentence(console, summary.tied_text(len(summary.ties) - 1, base is not None and base.params in summary.ties), indent=2)


def _print_exercise(console: Console, summary: RunSummary) -> None:
    """Print what the measurements cannot say of the parameters."""
    for sentence in summary.exercise.sentences if summary.exercise else ():
        print_sentence(console, sentence, style="yellow", indent=2)


def _print_confirmation(console: Console, summary: RunSummary) -> None:
    """Print the result of the confirmation, or why there is none, unless the decision contains that already."""
    found, decision = summary.confirmation, summary.decision
    reason = decision.reason if decision else ""
    if found is None:
        return
    if not found.confirmed and found.confirmed_why.removesuffix(".") not in reason:
        print_sentence(console, f"not confirmed: {found.confirmed_why}", indent=2)
    if found.confirmed and found.confirmation is not None and not (decision and decision.groups):
        print_sentence(console, f"against the baseline: {found.confirmation.sentence}", style="green", indent=2)


def extent_text(summary: RunSummary) -> str:
    """Return the numbers of evaluations and configurations by outcome, and how the time was spent."""
    costs, repeats = summary.costs, summary.n_evaluations - summary.n_configurations
    parts = [f"{number} {outcome}" for outcome, number in summary.counts.items()]
    parts += [f"{repeats} of them repeat an earlier one"] if repeats > 0 else []
    launched = summary.n_evaluations - summary.counts.get(Status.INFEASIBLE, 0)
    further = (summary.n_deployments or launched) - launched
    outcomes = f" ({', '.join(parts)})" if parts else ""
    starts = counted(costs.engine_starts, "engine start") if costs.service_starts is None else counted(costs.service_starts, "service start")
    return (
        f"{counted(summary.n_evaluations, 'evaluation')} of {counted(summary.n_configurations, 'configuration')}{outcomes}"
        f"{f', and {further} more of the baseline at the end,' if further > 0 else ''} in {costs.wall_s:.0f} s, "
        f"{100 * (costs.measuring_share or 0):.0f} % of it under load; {starts}"
    )


def fitness_text(standing: StandingRecord) -> str:
    """Return the fitness with its standard error and its sample sizes."""
    error = "" if standing.fitness_stderr is None else f" ± {standing.fitness_stderr:.4f}"
    return f"{standing.fitness:.4f}{error} (mean{' ± standard error' if error else ''} of {standing.samples})"
