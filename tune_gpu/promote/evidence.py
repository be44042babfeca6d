"""Read the evidence for a run's winner from its artifacts, and the target's device from this machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from tune_gpu.artifacts.finished_run import FinishedRun
from tune_gpu.artifacts.reading import comparisons_of, is_of_winner
from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import ServiceError
from tune_gpu.common.metric import split_path
from tune_gpu.config.schema import PromoteSettings
from tune_gpu.metrics import VOICE_TURN, finding_entry
from tune_gpu.promote.gate import Evidence, TargetDevice
from tune_gpu.promote.recomputed import recomputed
from tune_gpu.promote.target import Target
from tune_gpu.telemetry.cuda_visible import nvidia_cards
from tune_gpu.telemetry.device_choice import choose_device
from tune_gpu.telemetry.neighbours import neighbours_on
from tune_gpu.telemetry.several import open_device

NOT_OURS = (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError)
"""Errors of reading a file that passed its first checks."""


def evidence_of(run: FinishedRun) -> Evidence:
    """Return the run's lines and the comparison of its winner with the baseline: `comparison.json`, else the run's own confirmation.

    `comparison.json` is always the later one. Their time stamps are not compared, because the clock may have been set in between. A
    comparison with a baseline from the command line is evidence only for a run without its own baseline, and the gate names that baseline.
    The verdict is computed again from the recorded deployments.

    Raise UserError for artifacts that are incomplete or of another program.
    """
    there = list(comparisons_of(run.folder, has_baseline=bool(run.config.baseline)))
    if not there:
        return Evidence(run.winner, None, run.lines, run.device)
    name, speaks = next(((name, content) for name, content in there if is_of_winner(content, run.winner)), there[0])
    try:
        computed, difference = recomputed(run.config, speaks, run.folder.path / f"{name}.jsonl")
    except UserError:
        raise
    except NOT_OURS as error:
        raise not_written_here(run, error) from error
    return Evidence(run.winner, computed, run.lines, run.device, difference and f"{name}.json: {difference}")



def not_written_here(run: FinishedRun, error: Exception) -> UserError:
    """Return the error for a file that this program did not write."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return UserError(f"{run.folder.path}: its comparison or one of its lines was not written by this program ({reason})")


def target_device(settings: PromoteSettings, target: Target, units: Sequence[str], n_cards: int = 1) -> TargetDevice:
    """Return the target's device as this machine sees it, with as many cards as the comparison had. Raise UserError if a card cannot be
    read.

    Args:
        settings: `promote`.
        target: starts the units.
        units: whose processes are no neighbours.
        n_cards: of the comparison.
    """
    kind = choose_device("auto").kind if settings.device == "auto" else settings.device
    if kind == "cuda" and not nvidia_cards():
        return TargetDevice(kind, None, settings.neighbours_mib)
    try:
        with closing(open_device(kind, n_cards)) as probe:
            ours = [pid for unit in units for pid in target.pids(unit)]
            others = neighbours_on(probe, ours).mib
    except ServiceError as error:  # the driver does not answer, or MIG divides the card
        raise UserError(f"promote.device={settings.device}: {error.failure.message}") from error
    return TargetDevice(kind, probe.info.name, others if settings.neighbours_mib is None else settings.neighbours_mib)


def expected_turn_ms(comparison: Comparison | None) -> float | None:
    """Return the winner's median turn in ms, as the comparison measured it, or None if it was not measured."""
    for finding in comparison.findings if comparison else ():
        entry = finding_entry(finding.metric)
        if entry is not None and entry.is_entry(VOICE_TURN) and split_path(finding.metric)[1] == "p50" and finding.effect:
            return finding.effect.ours
    return None
