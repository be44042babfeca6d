"""`tune-gpu compare`: compare a run's winner with the baseline, or with another configuration."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
from rich.console import Console

from tune_gpu.artifacts.finished_run import FinishedRun, read_finished_run
from tune_gpu.artifacts.json_text import strict_json
from tune_gpu.artifacts.reading import place_of, read_winner
from tune_gpu.artifacts.records.comparison import ArmSource, Comparison
from tune_gpu.artifacts.records.decision import Decision
from tune_gpu.artifacts.records.ends import ComparisonEnd
from tune_gpu.artifacts.redaction import restore_secrets
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.decision_view import print_decision
from tune_gpu.cli.terminal import Finite, console_of
from tune_gpu.common.errors import UserError
from tune_gpu.common.imports import uncollected
from tune_gpu.common.wording import counted
from tune_gpu.compare.arms import Origin, changed_params, make_origin, winner_of_other
from tune_gpu.compare.confirm import BASELINE, GIVEN_BASELINE, WINNER, confirmed, speaks_for
from tune_gpu.compare.forecast import times_of, whole
from tune_gpu.compare.metrics import metrics_of
from tune_gpu.compare.progress import ProgressReporter, describe_arms, make_findings_table
from tune_gpu.compare.records import make_comparison
from tune_gpu.compare.rounds import Outcome, PairedExperiment, Rules, findings_of
from tune_gpu.compare.same_traffic import check_alike, check_unchanged
from tune_gpu.compare.store import ReplicateStore
from tune_gpu.compare.verdict import Finding
from tune_gpu.config.overrides import last_given
from tune_gpu.config.rules import bounds_of
from tune_gpu.config.schema import ConfirmSettings
from tune_gpu.experiment.checks import check_config
from tune_gpu.experiment.decision import Case, decide, targets_missed, typical_deployment_s
from tune_gpu.experiment.node_check import checked_ray
from tune_gpu.ray_tune.devices import device_of
from tune_gpu.services.registry import check_installed

_ROUNDS = click.IntRange(int(bounds_of(ConfirmSettings, "min_rounds").least or 0), int(bounds_of(ConfirmSettings, "max_rounds").most or 0))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("run_id")
@click.argument("overrides", nargs=-1)
@click.option("--baseline", metavar="KEY=VALUE,…", help="Configuration that runs today, as parameters that differ from the run's baseline. It may lie outside the space.")
@click.option("--against", metavar="RUN_ID|KEY=VALUE,…", help="Compare with another run's winner, or with the winner after these changes.")
@click.option(
    "--budget-s", type=Finite(min=0, min_open=True), default=1800.0, show_default=True, help="Longest duration in seconds; then the comparison ends without a verdict."
)
@click.option("--rounds", type=_ROUNDS, help="Most rounds (default: confirm.max_rounds).")
@click.option("--trust", is_flag=True, help="Trust the runs as your own: they may set options that run code.")
@click.option("--json", "as_json", is_flag=True, help="Print comparison.json on standard output, and progress on standard error.")
@click.option("-q", "--quiet", is_flag=True, help="Print the verdict only.")
def compare(
    run_id: str,
    overrides: tuple[str, ...],
    baseline: str | None,
    against: str | None,
    budget_s: float,
    rounds: int | None,
    trust: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show whether a run's winner is better than what runs today.

    Both are deployed in turn (A B, B A, …, in an order from the seed) with the services' real processes. Each round has its own traffic,
    the same for both. The comparison ends when every metric's difference is shown or ruled out, or the budget ends. It writes
    comparison.json into the run's folder (comparison-*.json if the other arm is not the run's baseline), and `confirmed` with its
    evidence (or the reason why not) into the winner file. Nothing else of the run changes. After Ctrl-C the same command resumes it.

    \b
      tune-gpu compare 20260131-120000
      tune-gpu compare 20260131-120000 --baseline vllm_memory_util=0.45 --budget-s 900
      tune-gpu compare 20260131-120000 --against 20260130-090000
      tune-gpu compare 20260131-120000 confirm.windows=4 confirm.confidence=0.99 run.artifacts_dir=/data/artifacts

    Settings under run, ray and confirm may be overridden with KEY=VALUE, or removed with ~KEY; tune_gpu/config/schema.py lists them.

    Exit codes: 0 compared (whatever the verdict); 1 an arm could not be measured; 2 invalid input; 130 interrupted (resume it).
    """
    console = console_of(stderr=as_json)
    try:
        request = _request(run_id, list(overrides), baseline, against, budget_s, rounds, trust=trust)
        with request.run.folder.held():
            content = _compare(console, request, quiet)
    except (UserError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(strict_json(content.dump()))
    sys.exit({str(ComparisonEnd.INTERRUPTED): 130, str(ComparisonEnd.FAILED): 1}.get(content.ended, 0))


@dataclass(frozen=True)
class ComparisonRequest:
    """The two configurations to compare, and how."""

    run: FinishedRun
    arms: dict[str, dict[str, Any]]
    origins: dict[str, Origin]
    theirs: str
    rules: Rules
    file: str
    """Of the result, in the run's folder, without its ending."""
    notes: Sequence[str] = ()
    """What is not known about it, to be printed."""

    @property
    def confirms(self) -> bool:
        """Return whether the result can confirm the run's winner."""
        return speaks_for(self.theirs, self.run.config.baseline)

    @property
    def label(self) -> str:
        """Return what to print beside the name of the other arm."""
        return self.origins[self.theirs].label


def _request(
    run_id: str, overrides: list[str], baseline: str | None, against: str | None, budget_s: float, rounds: int | None, *, trust: bool = False
) -> ComparisonRequest:
    from tune_gpu.compare.setup import make_rules
    from tune_gpu.workload.traffic_hash import planned_hash

    if baseline and against:
        raise UserError("--baseline and --against: both are given. Give one of them.")
    artifacts_dir = last_given(overrides, "run.artifacts_dir", "artifacts")
    run = read_finished_run(artifacts_dir, run_id, overrides, "compare", trust=trust)
    config, theirs, file, source = run.config, BASELINE, "comparison", ArmSource.BASELINE
    params = dict(config.baseline)
    notes = [check_unchanged(f"compare {run_id}", run.traffic, planned_hash(config))]
    if against and "=" not in against:
        other = read_finished_run(artifacts_dir, against, [], "--against", trust=trust)
        theirs, params, source = other.folder.run_id, winner_of_other(run, other), ArmSource.AGAINST
        notes.append(check_alike(f"--against {against}", other.traffic, run.folder.run_id, run.traffic))
    elif against:
        theirs, params, source = "other", changed_params(config, run.winner, against, "--against"), ArmSource.AGAINST
    elif baseline and (given := changed_params(config, params, baseline, "--baseline")) != params:
        theirs, params, source = GIVEN_BASELINE, given, ArmSource.GIVEN_BASELINE
    if not params:
        raise UserError(f"compare {run_id}: the run has no baseline. Give --baseline or --against.")
    if params == run.winner:
        raise UserError(f"compare {run_id}: the winner and {theirs} are the same configuration. Give another one.")
    if theirs != BASELINE:
        digest = hashlib.sha256(repr((theirs, sorted(params.items()))).encode()).hexdigest()[:8]
        file += f"-{digest if theirs in ('other', GIVEN_BASELINE) else theirs}"
    check_config(config)
    restore_secrets(config)
    origins = {WINNER: make_origin(config, run.winner, ArmSource.WINNER), theirs: make_origin(config, params, source)}
    return ComparisonRequest(run, {WINNER: run.winner, theirs: params}, origins, theirs, make_rules(config, budget_s=budget_s, max_rounds=rounds), file, [note for note in notes if note])


def _compare(console: Console, request: ComparisonRequest, quiet: bool) -> Comparison:
    from tune_gpu.compare.setup import comparison_config
    from tune_gpu.workload.traffic_hash import planned_hash

    choice = device_of(request.run.config)
    if request.run.config.ray.address is None:  # on a cluster the services run elsewhere
        check_installed(request.run.config.services, choice.kind)
    print_line = (lambda _line: None) if quiet else (lambda line: console.print(line, highlight=False, soft_wrap=True))
    config, folder, rules = request.run.config, request.run.folder, request.rules
    print_line(f"{config.name}, run {folder.run_id}: {choice.why}")
    for note in request.notes:
        print_line(note)
    for line in describe_arms(request.arms, {arm: origin.label for arm, origin in request.origins.items()}):
        print_line(line)
    if (times := times_of(request.run.lines, config)) is not None:
        print_line(whole(replace(config, confirm=replace(config.confirm, budget_s=rules.budget_s)), times).room)
    outcome, place = _measure(request, choice.kind, print_line)
    metrics = metrics_of(config)
    findings = findings_of(
        outcome.replicates, WINNER, request.theirs, metrics, alpha=outcome.alpha, tolerances=rules.tolerances, seed=rules.seed
    )
    holds, why = _confirmation(request, findings, outcome)
    content = make_comparison(
        run_id=folder.run_id,
        experiment=config.name,
        device=place.device if place else {"kind": choice.kind},
        arms=request.arms,
        ours=WINNER,
        theirs=request.theirs,
        findings=findings,
        outcome=outcome,
        rules=rules,
        neighbours_mib=place.neighbours_mib if place else 0.0,
        confirmed=holds,
        confirmed_why=why,
        origins=request.origins,
        traffic=planned_hash(comparison_config(config)),
    )
    if request.confirms and outcome.ended is not ComparisonEnd.INTERRUPTED:
        content = replace(content, decision=_decision(request, content))
    if outcome.ended is not ComparisonEnd.INTERRUPTED:
        folder.write_json(f"{request.file}.json", content)
        if request.confirms:
            _write_into_winner(folder, content, f"{request.file}.json")
    _print_result(console, request, findings, content, outcome, quiet)
    return content


def _measure(request: ComparisonRequest, kind: str, print_line: Any) -> tuple[Outcome, Any]:
    """Return the outcome, and the client of the actor that measured it (None if there was none)."""
    with uncollected():
        from tune_gpu.common.interrupt import terminated_as_interrupt
        from tune_gpu.compare.measuring_actor import MeasurementLost
        from tune_gpu.compare.setup import comparison_client, make_terms, measure_in
        from tune_gpu.ray_tune.placement import measurement_resources

    config, rules = request.run.config, request.rules
    folder, terms = request.run.folder, make_terms(config, kind, request.arms, rules.windows)
    store = ReplicateStore(folder.path / f"{request.file}.jsonl", terms, folder.redactor)
    spent_s = sum(replicate.wall_s for replicate in store.replicates())
    if spent_s:
        print_line(f"resuming with {len(store.replicates())} measured deployments ({spent_s:.0f} s of the budget)")
    metrics = metrics_of(config)

    def decided(replicates: Any, alpha: float) -> bool:
        found = findings_of(replicates, WINNER, request.theirs, metrics, alpha=alpha, tolerances=rules.tolerances, seed=rules.seed)
        return all(finding.decided for finding in found)

    client = None
    try:
        with (
            terminated_as_interrupt(),
            checked_ray(config, kind),
            comparison_client(config, kind, measurement_resources(config, kind), print_line) as client,
        ):
            reporter = ProgressReporter(print_line, rules.budget_s, spent_s)
            return PairedExperiment(list(request.arms), rules, store, measure_in(client, request.arms), reporter).run(decided), client
    except MeasurementLost as error:
        return PairedExperiment(list(request.arms), rules, store, _never).stopped(ComparisonEnd.FAILED, str(error)), client
    except KeyboardInterrupt:  # before or after the rounds
        return PairedExperiment(list(request.arms), rules, store, _never).stopped(ComparisonEnd.INTERRUPTED, "it was interrupted"), client


def _never(_arm: str, _number: int, _window: int) -> Any:
    raise AssertionError("nothing more is measured")


def _confirmation(request: ComparisonRequest, findings: list[Finding], outcome: Outcome) -> tuple[bool, str]:
    if outcome.ended is ComparisonEnd.FAILED:
        holds, why = False, outcome.why
    else:
        holds, why = confirmed(findings, request.run.config.confirm.metric, outcome.why, request.theirs)
    return holds and request.confirms, why


def _decision(request: ComparisonRequest, content: Comparison) -> Decision:
    run = request.run
    case = Case(
        run.folder.run_id,
        place_of(run.folder),
        run.winner,
        request.arms[request.theirs],
        content.ended_why if content.ended == ComparisonEnd.FAILED else "",
        content,
        f"{request.file}.json",
        typical_deployment_s(run.lines),
        targets_missed(run.lines, run.winner, request.arms[request.theirs], run.config),
    )
    return decide(case, run.config.confirm, run.config.promote)


def _write_into_winner(folder: RunFolder, content: Comparison, file: str) -> None:
    """Write the result into the winner file, if it is this run's: it is the experiment's, and a later run may have replaced it."""
    winner = read_winner(folder)
    if winner is not None:
        folder.write_winner(winner.with_confirmation(content.summary(file), content.decision))


def _print_result(console: Console, request: ComparisonRequest, findings: list[Finding], content: Comparison, outcome: Outcome, quiet: bool) -> None:
    if not quiet:
        console.print(make_findings_table(findings, WINNER, request.theirs, request.label))
        console.print(
            f"{counted(outcome.n_rounds, 'round')} in {outcome.wall_s:.0f} s; {outcome.why}; intervals at {100 * (1 - outcome.alpha):.4g} % each",
            highlight=False,
            soft_wrap=True,
        )
    if outcome.ended is ComparisonEnd.FAILED:
        console.print(outcome.why, style="red", highlight=False, soft_wrap=True)
    else:
        console.print(content.sentence, style="bold", highlight=False, soft_wrap=True)
    if request.confirms:
        console.print(f"confirmed: {str(content.confirmed).lower()}; {content.confirmed_why}", highlight=False, soft_wrap=True)
    elif outcome.ended is not ComparisonEnd.FAILED:
        console.print(f"{content.confirmed_why}. Promote goes by the run's own baseline: tune-gpu compare {request.run.folder.run_id}", highlight=False, soft_wrap=True)
    if content.decision is not None:
        print_decision(console, content.decision)
    folder = request.run.folder
    if outcome.ended is ComparisonEnd.INTERRUPTED:
        console.print(
            f"stopped; {counted(outcome.n_rounds, 'round')} kept in {folder.path}; the same command resumes", highlight=False, soft_wrap=True
        )
    else:
        console.print(f"written: {folder.path / (request.file + '.json')}", highlight=False, soft_wrap=True)
