"""Read a run from disk and check it, for `report`, `status`, `compare` and `promote`. Reading changes nothing.

A folder may be incomplete (the run was killed), foreign (another program's file under our name), or written by a newer program. Each of
these raises a `UserError` of one line that names the file. Unknown fields are accepted.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from tune_gpu.artifacts.records.base import Record
from tune_gpu.artifacts.records.comparison import ArmSource, Comparison
from tune_gpu.artifacts.records.decision import Decision
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.ends import RunEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.manifest import Manifest, ProcessRecord
from tune_gpu.artifacts.records.summary import RunSummary, StandingRecord
from tune_gpu.artifacts.records.winner import WinnerFile
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.common.wording import counted

T = TypeVar("T", bound=Record)
OfRun = TypeVar("OfRun", Manifest, RunSummary, Comparison)


@dataclass(frozen=True, kw_only=True)
class _Plan(Record):
    """The required fields of `plan.json`. Its readers check the other fields themselves."""

    counts: dict[str, Any]
    refused: tuple[Any, ...]


class RunState(StrEnum):
    """Progress of a run."""

    FINISHED = "finished"
    NO_WINNER = "no winner"
    """It ran to its end, but no configuration was feasible."""
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """It was stopped (Ctrl-C, SIGTERM, the budget of an earlier attempt) and can be resumed."""
    KILLED = "killed"
    """Its process ended without recording an end. It can be resumed."""
    BROKEN = "broken"
    """Its files cannot be read."""

    @property
    def resumable(self) -> bool:
        """Return True if `launch --resume` can continue the run."""
        return self in (RunState.INTERRUPTED, RunState.KILLED)


@dataclass(frozen=True)
class RunRecord:
    """All files of a run."""

    folder: RunFolder
    state: RunState
    config: Mapping[str, Any]
    """`config.yaml`, unchecked."""
    lines: tuple[EvaluationRecord, ...]
    """All complete lines, in the order of the generations."""
    manifest: Manifest | None = None
    summary: RunSummary | None = None
    plan: Mapping[str, Any] | None = None
    comparison: Comparison | None = None
    """The result of `tune-gpu compare` against the baseline."""
    confirmation: Comparison | None = None
    """The result of the run's own confirmation of its winner."""
    anchors: tuple[EvaluationRecord, ...] = ()
    """Further deployments of the baseline, which the tournament did not use; empty in runs of older programs."""

    @property
    def ended(self) -> bool:
        """Return True if nothing is left to measure. A run that ended by its time budget can be resumed with a new budget."""
        return self.state in (RunState.FINISHED, RunState.NO_WINNER) and self.summary is not None and self.summary.ended != RunEnd.TIME_BUDGET

    @property
    def run_id(self) -> str:
        """Return the run's id."""
        return self.folder.run_id

    @property
    def evidence(self) -> Comparison | None:
        """Return the A/B comparison with the baseline that supports the winner, or None."""
        best = self.summary.best if self.summary else None
        return next((found for found in (self.comparison, self.confirmation) if found and best and is_of_winner(found, best.params)), None)

    @property
    def decision(self) -> Decision | None:
        """Return what to do about the winner: the decision of the latest comparison with the baseline, else the run's own.

        None if the run has not ended, or was made by an older program without decisions.
        """
        if self.summary is None or self.state.resumable or self.state is RunState.RUNNING:
            return None
        later = self.evidence is not None and self.evidence is self.comparison
        return self.comparison.decision if later and self.comparison else self.summary.decision

    @property
    def traffic(self) -> str | None:
        """Return the hash of the run's traffic, or None if an older program measured it."""
        return self.manifest.recorded_traffic if self.manifest else None

    @property
    def device(self) -> DeviceRecord | None:
        """Return the device of the manifest, or None if it is unknown."""
        return next(iter(self.manifest.devices), None) if self.manifest else None


def read_run(artifacts_dir: str | Path, run_id: str) -> RunRecord:
    """Read a run by its id, or by the path of its folder.

    Raises:
        UserError: there is no such run, or a file of it is half-written, foreign, or of a newer program.
    """
    return read_folder(find_run(artifacts_dir, run_id))


def find_run(artifacts_dir: str | Path, run_id: str) -> RunFolder:
    """Return the folder of a run by its id or its path. Raise UserError, listing the existing runs, if there is no such run."""
    asked = Path(run_id).expanduser()
    if asked.is_dir() and (asked / "config.yaml").is_file():
        path = asked.resolve()
        return RunFolder(path.parent.parent, path.parent.name, path.name)
    return RunFolder.find(artifacts_dir, run_id, asked_as="")


def read_folder(folder: RunFolder) -> RunRecord:
    """Read a run as `read_run` does, from a known folder."""
    path = folder.path
    config = _read_yaml(path / "config.yaml")
    lines = tuple(folder.candidates(repair=False))
    compared = dict(comparisons_of(folder, has_baseline=bool(config.get("baseline"))))
    confirmation = compared.pop("confirmation", None)
    return RunRecord(
        folder, _state(manifest := _of_run(folder, Manifest, "manifest.json"), summary := _of_run(folder, RunSummary, "summary.json")), config, lines,
        manifest, summary, plan=_plan(path / "plan.json"), comparison=next(iter(compared.values()), None),
        confirmation=confirmation, anchors=tuple(folder.anchors(repair=False)),
    )  # fmt: skip


def comparisons_of(folder: RunFolder, *, has_baseline: bool) -> Iterator[tuple[str, Comparison]]:
    """Yield the comparisons that can confirm the winner, with their files' names (without the suffix), the most relevant first.

    Args:
        folder: the run's folder.
        has_baseline: whether the run has its own baseline. If not, a comparison with a baseline from the command line counts, the latest
            first.
    """
    found = {} if has_baseline else {path.stem: read_comparison(folder, path.name) for path in sorted(folder.path.glob("comparison-*.json"))}
    given = {name: content for name, content in found.items() if content is not None and content.their_arm.source is ArmSource.GIVEN_BASELINE}
    yield from sorted(given.items(), key=lambda each: each[1].ended_at, reverse=True)
    for name in ("comparison", "confirmation"):
        if (content := read_comparison(folder, f"{name}.json")) is not None:
            yield name, content


def is_of_winner(comparison: Comparison, winner: Mapping[str, Any]) -> bool:
    """Return True if a comparison is about these parameters. A run that was resumed after the comparison may have found another winner."""
    return comparison.our_arm.params == winner


def read_comparison(folder: RunFolder, name: str) -> Comparison | None:
    """Return `comparison.json` or `confirmation.json` of a run, or None if it does not exist. Raise UserError for an incomplete file or
    another run's."""
    return _of_run(folder, Comparison, name)


def read_winner(folder: RunFolder) -> WinnerFile | None:
    """Return the experiment's winner file if it is this run's, else None. Raise UserError for a link, and for a file of another kind."""
    folder.check_winner_file()
    winner = _read(WinnerFile, folder.winner_file)
    return winner if winner is not None and winner.run_id == folder.run_id else None


def refuse_running(record: RunRecord) -> None:
    """Raise UserError if the run is still running."""
    if record.state is RunState.RUNNING:
        raise UserError(f"{record.run_id}: it is still running ({_who(record.manifest)}). Wait until it has ended; tune-gpu status shows that.")


def decided(record: RunRecord) -> tuple[RunSummary, StandingRecord]:
    """Return the summary and the winner of a run that ended with a winner. Raise UserError, naming what is missing, for any other run."""
    refuse_running(record)
    if record.summary is None or record.state.resumable:
        raise UserError(f"{record.run_id}: it has not ended ({record.state}). Resume it with: {resume_command(record.folder)}")
    if record.summary.best is None:
        kinds = ", ".join(f"{number} {kind}" for kind, number in record.summary.failures.items())
        reason = kinds or f"{counted(record.summary.n_evaluations, 'evaluation')}, none within the constraints"
        raise UserError(f"{record.run_id}: it has no winner, because no configuration was feasible ({reason})")
    return record.summary, record.summary.best


def all_runs(artifacts_dir: str | Path) -> Iterator[tuple[RunFolder, RunRecord | UserError]]:
    """Yield every run below a folder, oldest first. A run that cannot be read comes with its error."""
    root = Path(artifacts_dir).expanduser().resolve()
    for config in sorted(root.glob("*/*/config.yaml"), key=lambda path: (path.parent.name, path.parent.parent.name)):
        folder = RunFolder(root, config.parent.parent.name, config.parent.name)
        try:
            yield folder, read_folder(folder)
        except UserError as error:
            yield folder, error


def resume_command(folder: RunFolder) -> str:
    """Return the command that resumes the run."""
    return f"python -m tune_gpu.launch --resume {folder.run_id}{place_of(folder)}"


def place_of(folder: RunFolder) -> str:
    """Return the argument that a command needs to find the run: "" in the default folder, else ` run.artifacts_dir=…`."""
    return "" if folder.root == Path("artifacts").resolve() else " " + shlex.quote(f"run.artifacts_dir={folder.root}")


def _read(kind: type[T], path: Path) -> T | None:
    try:
        content = outside_files.read_json(path, outside_files.RUN_FILE)
    except outside_files.NotThere:
        return None
    return kind.parse(content, path)


def _of_run(folder: RunFolder, kind: type[OfRun], name: str) -> OfRun | None:
    found = _read(kind, folder.path / name)
    if found is not None and found.run_id != folder.run_id:
        raise UserError(f"{folder.path / name}: it belongs to run {found.run_id}, not to {folder.run_id}")
    return found


def _plan(path: Path) -> Mapping[str, Any] | None:
    found = _read(_Plan, path)
    return found.dump() if found else None


def _read_yaml(path: Path) -> dict[str, Any]:
    content = outside_files.read_yaml(path, outside_files.RUN_CONFIG)
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise UserError(f"{path}: not a run's configuration (`parameters` is missing)")
    return content


def _state(manifest: Manifest | None, summary: RunSummary | None) -> RunState:
    if manifest is not None and manifest.ended_at is None and _alive(manifest.process):
        return RunState.RUNNING
    if summary is None or manifest is None or manifest.ended_at is None:
        return RunState.KILLED
    if summary.ended == RunEnd.INTERRUPTED:
        return RunState.INTERRUPTED
    return RunState.FINISHED if summary.best is not None else RunState.NO_WINNER


def _alive(process: ProcessRecord | None) -> bool:
    """Return True if the process of a manifest is running: the same id and start time, on this machine."""
    if process is None or process.host != socket.gethostname() or process.pid is None or process.start_ticks is None:
        return False
    return start_ticks(process.pid) == process.start_ticks


def _who(manifest: Manifest | None) -> str:
    process = (manifest and manifest.process) or ProcessRecord()
    return f"process {process.pid or '?'} on {process.host or '?'}"
