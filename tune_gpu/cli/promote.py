"""`tune-gpu promote`: turn a winner into files that can be reviewed, applied and rolled back."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tune_gpu.artifacts.finished_run import FinishedRun, read_finished_run
from tune_gpu.artifacts.redaction import Redactor
from tune_gpu.cli.terminal import Finite, console_of
from tune_gpu.common.atomic_files import read_plain, remove_plain, write_whole
from tune_gpu.common.errors import UserError
from tune_gpu.common.interrupt import terminated_as_interrupt
from tune_gpu.config.loader import apply_overrides
from tune_gpu.config.overrides import is_override
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with
from tune_gpu.experiment.checks import check_config
from tune_gpu.promote.apply import Deployer, folder_of, refuse_unfinished
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.bundle import MANIFEST, before_of, bundle_of, write_bundle
from tune_gpu.promote.decision import AlreadyWritten, Decision, Outdated, Refused, Reviewed, Soaked, SoakFirst, decide
from tune_gpu.promote.env_file import require_keys
from tune_gpu.promote.evidence import NOT_OURS, expected_turn_ms, not_written_here
from tune_gpu.promote.gate import Condition, Evidence, TargetDevice, conditions, sharing
from tune_gpu.promote.installed import Installation, check_writable
from tune_gpu.promote.live_turns import LiveTurns
from tune_gpu.promote.places import Place
from tune_gpu.promote.render import services_of
from tune_gpu.promote.restore import RolledBack
from tune_gpu.promote.rollback_script import PROMOTIONS
from tune_gpu.promote.settings import SYSTEM_FILE, artifacts_of, trusted_settings, with_trusted
from tune_gpu.promote.soak_run import soak_winner
from tune_gpu.promote.subject import Subject, kept_of, reviewed, reviewed_before, subject_of
from tune_gpu.promote.watch import Watcher

OK, REFUSED, ROLLED_BACK, NOT_SERVING = 0, 1, 3, 4


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("run_id", required=False)
@click.argument("overrides", nargs=-1)
@click.option("--out", metavar="FOLDER", help="Where to write (default: artifacts/promotions/<experiment>/<run_id>).")
@click.option(
    "--soak-s", type=Finite(min=0, min_open=True), help="Seconds that the winner runs under load (default: promote.soak_s)."
)
@click.option("--target", type=click.Choice(["systemd", "process"]), help="Where services run (default: promote.target).")
@click.option("--apply", "apply_", is_flag=True, help="Install the reviewed files, restart and watch the services. Roll back if a check fails.")
@click.option("--expect", metavar="SHA256", help="With --apply: install only the bundle with this hash, which the review printed.")
@click.option("--settings", metavar="FILE", help=f"File of promote's settings (default: {SYSTEM_FILE}, if it exists).")
@click.option("--rollback", is_flag=True, help="Undo the last --apply (RUN_ID may be omitted).")
@click.option("--recover", is_flag=True, help="Restore the files after an interrupted --apply or --rollback, if there is one (no RUN_ID).")
@click.option("--at-boot", is_flag=True, hidden=True, help="With --recover: restore only files; the boot starts the services.")
@click.option("--trust", is_flag=True, help="Trust the run: it may set options that run code.")
@click.option("--json", "as_json", is_flag=True, help="Print the gate's verdict as JSON on standard output, the rest on standard error.")
def promote(
    run_id: str | None,
    overrides: tuple[str, ...],
    out: str | None,
    soak_s: float | None,
    target: str | None,
    apply_: bool,
    expect: str | None,
    settings: str | None,
    rollback: bool,
    recover: bool,
    at_boot: bool,
    trust: bool,
    as_json: bool,
) -> None:
    """Turn a run's winner into a deployment that can be reviewed, applied and rolled back.

    First the gate checks the winner: a comparison with the baseline confirms it; it was measured on the target's kind of device, beside
    the co-tenants that it will have, and without an out-of-memory event; it is better than the baseline by promote.min_gain_pct in
    promote.metric, and worse in no metric beyond confirm.tolerances; and it runs under load for promote.soak_s without a failure or
    growing memory. Then promote writes an env file and a unit file for each service, a configuration for each whose program reads one
    (vllm serve --config), changes.diff and a manifest with hashes, and prints the hash of the bundle. A service that runs already
    (kind: external) is neither deployed nor touched.

    --apply installs exactly what was written for review, or refuses and names the difference. --expect requires the hash that the review
    printed; it is needed if others can change the folder of the review. --apply restarts the services, those whose memory
    grows before those that reserve theirs, waits for the health check of each, compares the running services with the measured ones, asks
    each by its own protocol, and takes live turns of the run's traffic. A deployment that fails a check is rolled back. The audit log and
    rollback.sh are in INSTALL_DIR/promotions. Put keys into INSTALL_DIR/secrets.env, which the units read; promote reads them there or from
    its own environment for its requests. Without keys nothing is applied. Ctrl-C, SIGTERM and a closed terminal restore everything; after a
    power cut the next boot does (systemd), or --recover.

    promote.services.NAME has the unit, url, key_env, command and model of a service; the default pair has promote.vllm and promote.whisper.
    Defaults: unit tune-gpu-NAME.service, the next free port of 127.0.0.1 from 8000 on, and the variable from which the service reads its key.

    \b
      tune-gpu promote 20260131-120000
      tune-gpu promote 20260131-120000 --apply --expect 2f0a…
      tune-gpu promote --rollback
      tune-gpu promote --recover
      tune-gpu promote 20260131-120000 --target process promote.install_dir=./deployed promote.soak_s=60 promote.device=cpu
      tune-gpu promote 20260131-120000 promote.services.llm.unit=llm.service promote.services.llm.url=http://127.0.0.1:9000

    Settings under promote, confirm, run and ray may be overridden with KEY=VALUE, or removed with ~KEY; tune_gpu/config/schema.py lists
    them. The run's own promote settings, confirm.tolerances and confirm.confidence are ignored.

    Exit codes: 0 written, applied or rolled back as requested; 1 the gate refused (each unmet condition is named); 2 bad input; 3 applied,
    failed a check, and rolled back; 4 rolled back, but a service that answered before does not; 130 interrupted.
    """
    console = console_of(stderr=as_json)
    if run_id is not None and is_override(run_id):
        overrides, run_id = (run_id, *overrides), None
    given = [*overrides, *([f"promote.target={target}"] if target else []), *([f"promote.soak_s={soak_s}"] if soak_s else [])]
    try:
        if apply_ + rollback + recover > 1:
            raise UserError("--apply, --rollback and --recover: they exclude each other. Give one of them.")
        if recover and run_id is not None:
            raise UserError(f"--recover {run_id}: takes no RUN_ID, because it restores whatever was interrupted. Omit RUN_ID.")
        if expect is not None and not apply_:
            raise UserError("--expect: only valid with --apply. Give both.")
        with terminated_as_interrupt():
            if recover:
                sys.exit(_recover(console, given, settings, at_boot=at_boot))
            if rollback:
                sys.exit(_rollback(console, run_id, given, settings, trust=trust))
            if run_id is None:
                raise UserError("RUN_ID: missing. Give the run whose winner to promote.")
            subject = subject_of(run_id, given, out, settings, _printer(console), check_config, trust=trust)
            asked = _Request(apply_, expect, soak_anew=soak_s is not None, as_json=as_json)
            sys.exit(_promote(console, subject, asked))
    except (UserError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt as error:
        click.echo(f"interrupted; {str(error) or 'the deployment is as it was before'}", err=True)
        sys.exit(130)


@dataclass(frozen=True)
class _Request:
    """The options of the command."""

    apply: bool
    expect: str | None
    soak_anew: bool
    as_json: bool


def _promote(console: Console, subject: Subject, asked: _Request) -> int:
    run, print_line = subject.run, _printer(console)
    refuse_unfinished(folder_of(run.config.promote))
    if asked.apply:
        subject.target.check(subject.bundle.units)
    found = [*_conditions(run, subject.evidence, subject.device), *sharing(settings_with(run.config, run.winner))]
    for condition in found:
        _print_condition(console, condition)
    if asked.apply and all(condition.holds for condition in found):
        require_keys(subject.services, folder_of(run.config.promote))
    decision, soak = _decide(subject, asked, found), None
    if isinstance(decision, SoakFirst):
        condition, soak = soak_winner(run, subject.device.kind, print_line)
        _print_condition(console, condition)
        found = [*found, condition]
        decision = _decide(subject, asked, found, soaked=True)
    if isinstance(decision, (AlreadyWritten, Outdated, Reviewed)):
        print_line(f"written and soaked at {decision.manifest.get('created_at')}: {subject.folder}")
    else:
        _write_verdict(subject.folder, _verdict(subject, found, soak))
    if asked.as_json:
        click.echo(read_plain(subject.folder / "gate.json") or b"{}")
    return _act(console, subject, decision)


def _decide(subject: Subject, asked: _Request, found: Sequence[Condition], *, soaked: bool = False) -> Decision:
    """Decide the next step. With `--apply` the promotion must have been written before."""

    def written() -> Mapping[str, Any] | None:
        if asked.apply:
            return reviewed(subject, asked.expect)
        return None if asked.soak_anew else kept_of(subject)

    return decide(found, soaked=soaked, apply=asked.apply, written=written, installed=lambda: before_of(subject.bundle))


def _act(console: Console, subject: Subject, decision: Decision) -> int:
    """Carry out the decision, and return the exit code."""
    print_line = _printer(console)
    match decision:
        case Refused(unmet):
            console.print(f"refused: {', '.join(unmet)}; nothing was deployed", style="red", highlight=False, soft_wrap=True)
            return REFUSED
        case Reviewed(manifest):
            return _apply(console, subject, manifest)
        case Outdated(manifest):
            _write(subject, {"created_at": manifest.get("created_at")}, print_line)  # keep the time of the soak
        case Soaked():
            _write(subject, {}, print_line)
    print_line(f"sha256 of the bundle: {subject.bundle.sha256}")
    print_line(f"apply with the same command and --apply --expect {subject.bundle.sha256}")
    return OK


def _write(subject: Subject, more: Mapping[str, Any], print_line: Any) -> None:
    """Write the promotion for review."""
    run, folder = subject.run, subject.folder
    services = services_of(run.config, run.config.baseline or run.winner, subject.device.kind)
    write_bundle(folder, subject.bundle, bundle_of(services, subject.target, folder_of(run.config.promote)), {**subject.about, **more})
    print_line(f"written for review: {folder} (changes.diff shows the changes)")


def _verdict(subject: Subject, found: Sequence[Condition], soak: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the gate's record."""
    verdict = {"schema_version": 1, "run_id": subject.run.folder.run_id, "passed": all(condition.holds for condition in found)}
    verdict |= {"conditions": [condition.as_dict() for condition in found], "bundle_sha256": subject.bundle.sha256}
    return verdict | ({} if soak is None else {"soak": soak})


def _conditions(run: FinishedRun, evidence: Evidence, device: TargetDevice) -> list[Condition]:
    try:
        return conditions(evidence, device, run.config.promote)
    except NOT_OURS as error:
        raise not_written_here(run, error) from error


def _apply(console: Console, subject: Subject, manifest: Mapping[str, Any]) -> int:
    """Install the same bundle that was compared with the review."""
    run, comparison = subject.run, subject.evidence.comparison
    experiment, services = run.folder.experiment, subject.services
    before = reviewed_before(subject.folder, manifest, subject.bundle)
    turns = LiveTurns.of(run.config, services)
    places = [service.place for service in services]
    deployer = _deployer(run.config, places, {"run_id": run.folder.run_id, "experiment": experiment}, _printer(console), turns)
    fell = deployer.apply(run.folder.run_id, experiment, services, subject.bundle.installable, before, expected_turn_ms(comparison))
    if fell is None:
        console.print(
            f"applied: {run.folder.run_id} serves; undo with tune-gpu promote --rollback",
            style="bold green",
            highlight=False,
            soft_wrap=True,
        )
        return OK
    return _report_rollback(console, fell, ROLLED_BACK)


def _rollback(console: Console, run_id: str | None, overrides: list[str], settings_file: str | None, *, trust: bool) -> int:
    trusted = trusted_settings(overrides, settings_file)
    config = trusted
    if run_id is not None:
        run = read_finished_run(artifacts_of(overrides), run_id, overrides, "promote --rollback", trust=trust)
        config, run_id = with_trusted(run.config, trusted), run.folder.run_id
    last = Installation(folder_of(config.promote)).peek()
    if last is None:
        raise UserError(f"promote --rollback: nothing that promote installed is in force in {folder_of(config.promote)}. Set promote.install_dir to the right folder.")
    if run_id is not None and last.run_id != run_id:
        raise UserError(f"promote --rollback {run_id}: the run in force is {last.run_id}. Omit RUN_ID to roll it back.")
    about = {"run_id": last.run_id, "experiment": last.experiment}
    deployer = _deployer(replace(config, promote=last.promote), last.places, about, _printer(console))
    change, back = deployer.rollback()
    if not back.serving:
        return _report_rollback(console, back, NOT_SERVING)
    console.print(f"rolled back: the files from before {change.run_id} are in force again", style="bold green", highlight=False, soft_wrap=True)
    return OK


def _recover(console: Console, overrides: list[str], settings_file: str | None, *, at_boot: bool) -> int:
    # At boot the unit gives the folder, so that a half-edited settings file does no harm; everything else is in the saved state.
    config = apply_overrides(ExperimentConfig(), overrides) if at_boot else trusted_settings(overrides, settings_file)
    folder = folder_of(config.promote)
    installation = Installation(folder)
    installation.peek()
    latest, recovered = installation.latest, None
    if latest is not None:
        about = {"run_id": latest.run_id, "experiment": latest.experiment}
        recovered = _deployer(replace(config, promote=latest.promote), latest.places, about, _printer(console)).recover(at_boot=at_boot)
    if recovered is None:
        console.print(f"nothing to recover: no apply was interrupted in {folder}", highlight=False, soft_wrap=True)
        return OK
    change, back = recovered
    if not back.serving:
        return _report_rollback(console, back, NOT_SERVING)
    console.print(f"recovered: the files from before {change.run_id} are in force again", style="bold green", highlight=False, soft_wrap=True)
    return OK


def _deployer(config: ExperimentConfig, places: Sequence[Place], about: dict[str, Any], print_line: Any, turns: LiveTurns | None = None) -> Deployer:
    """Return the deployer of the target. Only an apply takes live turns, so a rollback needs no recordings."""
    log = folder_of(config.promote) / PROMOTIONS / "audit.jsonl"
    check_writable([log])
    audit = Audit(log, about, lambda line: print_line(f"  {line}"))
    return Deployer.of(config.promote, places, Watcher(config.promote, turns), audit)


def _report_rollback(console: Console, back: RolledBack, code: int) -> int:
    console.print(f"rolled back: {back.why}", style="red", highlight=False, soft_wrap=True)
    if back.serving:
        return code
    console.print(back.not_serving_message, style="red", highlight=False, soft_wrap=True)
    return NOT_SERVING


def _write_verdict(folder: Path, verdict: dict[str, Any]) -> None:
    remove_plain(folder / MANIFEST)  # a refused promotion must not be applied
    write_whole(folder / "gate.json", json.dumps(Redactor().value(verdict), indent=2, ensure_ascii=False) + "\n", follow=False)


def _print_condition(console: Console, condition: Condition) -> None:
    mark, style = ("ok", None) if condition.holds else ("NOT MET", "red")
    console.print(f"{condition.name}: {mark}: {condition.said}", style=style, highlight=False, soft_wrap=True)


def _printer(console: Console) -> Any:
    return lambda line: console.print(line, highlight=False, soft_wrap=True)
