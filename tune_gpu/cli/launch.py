"""`python -m tune_gpu.launch`: find the best configuration of a space."""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import replace
from datetime import UTC, datetime

import click
from rich.console import Console

from tune_gpu.artifacts.reading import RunRecord, place_of, read_folder, resume_command
from tune_gpu.artifacts.records.ends import RunEnd
from tune_gpu.artifacts.records.summary import RunSummary
from tune_gpu.artifacts.redaction import Redactor, restore_secrets
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.cli.last_page import print_result
from tune_gpu.cli.progress import Progress, describe_params
from tune_gpu.cli.terminal import console_of, tolerate_encoding
from tune_gpu.common.errors import UserError
from tune_gpu.common.imports import uncollected
from tune_gpu.common.interrupt import terminated_as_interrupt
from tune_gpu.common.process.managed import process_age_s
from tune_gpu.common.wording import counted
from tune_gpu.compare.same_traffic import check_unchanged
from tune_gpu.config.loader import DEFAULT_SPACE, address_to_join, as_yaml, device_setting, load_config, load_run_config, raw_setting
from tune_gpu.config.overrides import is_override, key_of, last_given, parse_overrides
from tune_gpu.config.schema import ExperimentConfig, RaySettings
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.evaluation.memory_check.cards import UnknownMemory, this_card, this_node
from tune_gpu.experiment.checks import check_config
from tune_gpu.experiment.flag_check import check_flags
from tune_gpu.experiment.node_check import check_nodes
from tune_gpu.experiment.refusals import Refusals, plan_space
from tune_gpu.ray_tune.devices import cards_of_cluster, check_homogeneous, device_of
from tune_gpu.ray_tune.placement import check_resources, concurrency
from tune_gpu.search.space import SearchSpace
from tune_gpu.services import mps_policy as sharing
from tune_gpu.services.registry import check_installed, missing_here
from tune_gpu.telemetry.device_choice import DeviceChoice, check_reported, choose_device


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("space", required=False)
@click.argument("overrides", nargs=-1)
@click.option("--resume", metavar="RUN_ID", help="Resume a stopped run. Its measurements are kept.")
@click.option("--trust", is_flag=True, help="Trust the space or the resumed run as your own: it may set options that run code.")
@click.option("-q", "--quiet", is_flag=True, help="Print the winner only.")
@click.option("-v", "--verbose", is_flag=True, help="Also print how the time of each evaluation was spent.")
def launch(space: str | None, overrides: tuple[str, ...], resume: str | None, trust: bool, quiet: bool, verbose: bool) -> None:
    """Find the configuration that serves the traffic best.

    SPACE is a name in search_spaces/ or a path to a YAML file (default: spica_gpu_allocation). Any setting of it can be overridden with
    KEY=VALUE; a mapping given as a whole replaces the space's. ~KEY removes an entry of a mapping, or resets a setting to its default.
    For example:

    \b
      python -m tune_gpu.launch
      python -m tune_gpu.launch spica_gpu_allocation search.generations=6 workload.window_s=8
      python -m tune_gpu.launch services.vllm.model=smollm2-135m services.vllm.load_format=auto
      python -m tune_gpu.launch my_space.yaml device=cuda ray.address=auto
      python -m tune_gpu.launch my_space.yaml 'objective.weights={capacity: 1}' '~services.vllm.extra_args.seed'
      python -m tune_gpu.launch --resume 20260131-120000

    Models that need no hub: vLLM's demo-llm (a toy), smollm2-135m and all-MiniLM-L6-v2 (embeddings), Whisper's tiny.en and base.

    Each candidate is deployed for real (its own vLLM server, its own Whisper), driven with voice turns, measured and stopped. Results
    are written to artifacts/<experiment>/<run_id>/ as they arrive; the winner to artifacts/winners/<experiment>.json.

    Exit codes: 0 a winner; 1 nothing was feasible; 2 invalid input; 130 interrupted (resume it).
    """
    if space is not None and is_override(space):
        overrides, space = (space, *overrides), None
    console = console_of()
    try:
        with terminated_as_interrupt():
            sys.exit(_launch(console, space, list(overrides), resume, trust=trust, quiet=quiet, verbose=verbose))
    except UserError as error:
        click.echo(f"error: {Redactor().text(str(error))}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("stopped before anything was measured", err=True)
        sys.exit(130)


def _launch(console: Console, space: str | None, overrides: list[str], resume: str | None, *, trust: bool, quiet: bool, verbose: bool) -> int:
    from tune_gpu.workload.traffic_hash import planned_hash

    if resume is not None:
        config, record = _recorded(space, overrides, resume, trust=trust)
        if record.ended:
            return _print_ended(console, record)
        choice, folder = _continued(config, record), record.folder
        note = check_unchanged(f"--resume {resume}", record.traffic, planned_hash(config))
        if note and not quiet:
            console.print(note, highlight=False, soft_wrap=True, markup=False)
    else:
        config, choice, folder = _new(space or DEFAULT_SPACE, overrides, trust=trust)
    with contextlib.ExitStack() as held:
        if resume is not None:
            held.enter_context(folder.held())
        return _search(console, config, choice, folder, held, new=resume is None, quiet=quiet, verbose=verbose)


def _search(
    console: Console, config: ExperimentConfig, choice: DeviceChoice, folder: RunFolder, held: contextlib.ExitStack, *, new: bool, quiet: bool,
    verbose: bool,
) -> int:
    """Run the search, and return its exit code. The folder of a new run is locked from its creation on."""
    # Ray's import takes seconds, so it comes after all checks of the input.
    with uncollected():
        from tune_gpu.experiment.new_tournament import new_tournament
        from tune_gpu.experiment.run import Experiment
        from tune_gpu.ray_tune.session import check_room_here, local_or_joined_ray

    print_line = (lambda *_a, **_k: None) if quiet else console.print
    print_line(f"{config.name}: {choice.why}", highlight=False, soft_wrap=True)
    print_line(f"ray: {concurrency(config, choice.kind, choice.n_cards).why}", highlight=False, soft_wrap=True)
    refusals = _plan(config, choice) if new else Refusals.read(folder)
    print_line(refusals.describe(), highlight=False, soft_wrap=True)
    if sharing.allowed(config, choice.kind) is not None:
        print_line(f"left out: candidates with MPS; {sharing.forbidden(config, choice.kind)}", highlight=False, soft_wrap=True)
    try:
        with local_or_joined_ray(config.ray, choice.n_cards):
            check_room_here(config, choice.kind)
            check_nodes(config, choice.kind)
            if new:
                held.enter_context(folder.created(as_yaml(config)))
                refusals.write(folder)
            total = new_tournament(config, refusals).total_evaluations
            print_line(
                f"run {folder.run_id}: {_extent(config, total)}; seed {config.search.seed}",
                highlight=False,
                soft_wrap=True,
            )
            with Progress(console, total, list(config.parameters), catalogue_for(config), quiet=quiet, verbose=verbose) as progress:
                experiment = Experiment(config, choice, folder, progress, refusals)
                experiment.setup_s = process_age_s()
                summary = experiment.run()
        if summary.ended == RunEnd.INTERRUPTED:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        if not folder.path.is_dir():  # Ray was not up yet: there is no run to resume
            raise
        again = resume_command(folder)
        console.print(f"\nstopped; what was measured is kept in {folder.path}; resume with: {again}", highlight=False, soft_wrap=True)
        return 130
    code = _conclude(console, summary, folder)
    _report(console, folder)
    return code


def _extent(config: ExperimentConfig, total: int) -> str:
    """Return the size of the run in words. If the space is smaller than the planned evaluations, the run ends early."""
    size = SearchSpace.from_specs(config.parameters).size
    again = "; the baseline is deployed again at the end" if config.baseline and config.search.anchors else ""
    return (
        f"{'at most ' if size < total else ''}{counted(total, 'evaluation')} in {counted(config.search.generations, 'generation')} over "
        f"{'any number of' if math.isinf(size) else f'{size:.0f}'} configurations{again}"
    )


def _report(console: Console, folder: RunFolder) -> None:
    """Write `report.html`. The results are stored already, so an error here does not fail the run."""
    from tune_gpu.cli.report import write_report

    try:
        console.print(f"  report: {write_report(folder)}", highlight=False, soft_wrap=True)
    except UserError as error:
        console.print(f"  no report: {error}", style="red", highlight=False, soft_wrap=True, markup=False)


def _plan(config: ExperimentConfig, choice: DeviceChoice) -> Refusals:
    """Return the candidates that the preflight check refuses. On a cluster each trial is checked on its own node instead."""
    if config.ray.address is not None:
        return Refusals(note="each trial is checked on its own node")
    try:
        device = this_node() if choice.kind == "cpu" else this_card()
    except UnknownMemory as error:  # without the memory no candidate is known to be infeasible
        return Refusals(note=str(error))
    return plan_space(config, device)


def _new(space: str, overrides: list[str], *, trust: bool) -> tuple[ExperimentConfig, DeviceChoice, RunFolder]:
    address = address_to_join(space, overrides, trust=trust)
    asked = device_setting(space, overrides)
    choice = choose_device(
        asked, lambda kind: missing_here(load_config(space, overrides, kind, trust=trust).services, kind),
        cluster_gpus=_cluster_gpus(space, overrides, address),
    )  # fmt: skip
    config = load_config(space, overrides, choice.kind, trust=trust)
    if address is None:  # on a cluster the services run elsewhere
        check_installed(config.services, choice.kind)
    config.device = choice.kind
    check_config(config)
    check_resources(config, choice.kind)
    sharing.check_mps(config, choice.kind)
    if config.ray.address is None:
        check_reported(config.objective, choice.kind, config.search.objectives, catalogue_for(config))
        check_homogeneous(config, choice.kind)
    check_flags(config, SearchSpace.from_specs(config.parameters))
    run_id = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return config, choice, RunFolder(config.run.artifacts_dir, config.name, run_id, Redactor(config))


def _recorded(space: str | None, overrides: list[str], run_id: str, *, trust: bool) -> tuple[ExperimentConfig, RunRecord]:
    """Return the configuration and the record of a run to resume. Raise UserError."""
    if space is not None:
        raise UserError(f"{space}: --resume uses the configuration of the run. Leave SPACE out.")
    allowed = ("run.", "ray.")
    if foreign := [override for override in overrides if not key_of(override).startswith(allowed)]:
        raise UserError(f"{foreign[0]}: a resumed run keeps its settings of the search and the measurement. Only run.* and ray.* may be overridden.")
    parse_overrides(overrides)  # an invalid override is reported before a missing run
    record = read_folder(RunFolder.find(last_given(overrides, "run.artifacts_dir", "artifacts"), run_id))
    return load_run_config(record.folder.path, overrides, trust=trust), record


def _print_ended(console: Console, record: RunRecord) -> int:
    """Print that a run has ended, and which commands can use it. Return its exit code."""
    summary = record.summary
    best = summary.best if summary else None
    run = f"{record.folder.run_id}{place_of(record.folder)}"
    found = f"the winner is {describe_params(best.params)}" if best else (summary and summary.ended_reason) or "no feasible configuration was found"
    console.print(
        f"run {record.folder.run_id} has ended ({summary and summary.ended}): {found}. Nothing was measured and nothing was changed. "
        f"Read it with `tune-gpu report {run}`{f', measure its winner again with `tune-gpu compare {run}`' if best else ''}, "
        "or launch a new run.",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    return 0 if best else 1


def _continued(config: ExperimentConfig, record: RunRecord) -> DeviceChoice:
    """Return the device of a resumed run. Raise UserError if the run cannot be resumed."""
    restore_secrets(config)
    record.folder.redactor = Redactor(config)
    choice = replace(device_of(config), why=f"measuring on {config.device}, as this run has so far")  # the default reason may name a setting that the user has not set
    check_config(config)
    check_resources(config, choice.kind)
    sharing.check_mps(config, choice.kind)
    if config.ray.address is None:
        check_homogeneous(config, choice.kind)
    return choice


def _cluster_gpus(space: str, overrides: list[str], address: str | None) -> int | None:
    """Return the number of cards of the cluster to join, or None if the run uses this machine."""
    if address is None or raw_setting(space, overrides, "device") == "cpu":
        return None
    return cards_of_cluster(RaySettings(address=str(address)))


def _conclude(console: Console, summary: RunSummary, folder: RunFolder) -> int:
    best = summary.best
    print_result(console, summary)
    if not summary.n_evaluations:
        message = f"nothing was measured: the run ended first ({summary.ended}). Give it more time (run.time_budget_s)."
        console.print(message, style="red", highlight=False, soft_wrap=True)
        return 1
    if reason := summary.ended_reason:
        console.print(
            f"{reason}. No candidate starts, each time for this reason, so the run has ended. Correct the setting or the installation that "
            f"it names, then launch a new run ({folder.path} keeps the candidates).",
            style="red", highlight=False, soft_wrap=True, markup=False,
        )  # fmt: skip
        return 1
    if best is None:
        console.print(f"no feasible configuration was found; the reasons are in {folder.path}", style="red", highlight=False, soft_wrap=True)
        return 1
    console.print(
        f"  device: {summary.device}; artifacts: {folder.path}; winner file: {folder.winner_file}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    tolerate_encoding()
    launch()
